//! Layer 4: the glommio driver.
