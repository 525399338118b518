//! Layer 2: identities, ACL schemes and checks.
