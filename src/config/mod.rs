//! Layer 1: zoo.cfg as text in, typed configuration or located errors out.
