//! The `pgsluice` binary: hands over to the library, which boots, runs and names the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgsluice::cli::main()
}
