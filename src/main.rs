//! The thin binary: everything is in the library, behind [`o365feed::cli::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    o365feed::cli::main()
}
