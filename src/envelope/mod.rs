//! Wire formats: from a record to what it says about itself.
