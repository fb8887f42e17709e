//! The controller plugin: sizes a disaggregated job or refuses it.
