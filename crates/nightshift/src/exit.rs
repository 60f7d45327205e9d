//! Exit codes, and errors that say what to do next.

use std::process::ExitCode;

/// Why a command ended without doing what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Exit 1: it was tried and did not work.
    Failed(anyhow::Error),
    /// Exit 2: what was asked makes no sense as it stands.
    BadInput(anyhow::Error),
    /// Exit 2: the problems were printed already.
    Reported,
    /// Exit 1: somebody was asked and said no.
    Declined,
    /// Exit 3: it worked, and found something wrong.
    Found,
}

/// What a command gives back.
pub type CommandResult = Result<(), Failure>;

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

/// A bad-input failure from a text.
pub fn bad_input(text: impl Into<String>) -> Failure {
    Failure::BadInput(anyhow::anyhow!(text.into()))
}

/// Prints the failure on standard error, causes after it, and gives the exit code.
pub fn report(result: CommandResult, json: bool) -> ExitCode {
    let (error, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Reported) => return ExitCode::from(2),
        Err(Failure::Declined) => return ExitCode::from(1),
        Err(Failure::Found) => return ExitCode::from(3),
        Err(Failure::Failed(e)) => (e, 1),
        Err(Failure::BadInput(e)) => (e, 2),
    };
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    if json {
        eprintln!("{}", serde_json::json!({ "error": chain.join(": "), "exit": code }));
    } else {
        eprintln!("nightshift: {}", chain.join(": "));
    }
    ExitCode::from(code)
}
