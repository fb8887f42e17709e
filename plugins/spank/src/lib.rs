//! The SPANK plugin: native submit options and self-sizing steps.
