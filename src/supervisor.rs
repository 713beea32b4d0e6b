//! Names every task, and ends the process when a critical one ends.
