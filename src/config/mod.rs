//! The configuration: defaults, then a file, then `PGSLUICE__SECTION__KEY` variables.
