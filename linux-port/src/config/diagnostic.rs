//! What is wrong with a configuration, and where.

use core::fmt;

/// Most errors reported for one file; what follows is usually a consequence.
pub(super) const MAX_ERRORS: usize = 20;

/// One message about one line of a file. Shown as `file:line: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the user named it.
    pub file: String,
    /// Line, from 1; 0 is the file as a whole.
    pub line: usize,
    /// What is wrong; what would be right. Never holds a key.
    pub message: String,
}

impl Diagnostic {
    pub(super) fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, message: message.into() }
    }

    /// Where: `file:line`, or `file` for the file as a whole.
    #[must_use]
    pub fn place(&self) -> String {
        match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}", self.file),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.message)
    }
}

/// The first [`MAX_ERRORS`] of `errors` in the order of the file, and a count of the rest.
pub(super) fn in_order(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    by_line(&mut errors);
    let more = errors.len().saturating_sub(MAX_ERRORS);
    errors.truncate(MAX_ERRORS);
    if more > 0
        && let Some(first) = errors.first()
    {
        let message = format!("{more} more errors; correct these first");
        errors.push(Diagnostic::new(&first.file, 0, message));
    }
    errors
}

fn by_line(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|diagnostic| diagnostic.line);
}

/// Collects the diagnostics of one file, or of one peer section of it.
pub(super) struct Report {
    file: String,
    /// The peer that each message names; `None`: the messages are about the file or an interface.
    peer: Option<String>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), peer: None, errors: Vec::new(), warnings: Vec::new() }
    }

    /// A report on the same file, for what nobody wants to hear about.
    pub(super) fn silent(&self) -> Self {
        Self::new(&self.file)
    }

    /// A report on a peer of the same file, which each message names as `peer`.
    pub(super) fn of_peer(&self, peer: &str) -> Self {
        Self { peer: Some(peer.to_owned()), ..self.silent() }
    }

    pub(super) fn error(&mut self, line: usize, message: impl Into<String>) {
        let diagnostic = self.diagnostic(line, message.into());
        self.errors.push(diagnostic);
    }

    pub(super) fn warning(&mut self, line: usize, message: impl Into<String>) {
        let diagnostic = self.diagnostic(line, message.into());
        self.warnings.push(diagnostic);
    }

    fn diagnostic(&self, line: usize, message: String) -> Diagnostic {
        match &self.peer {
            Some(peer) => Diagnostic::new(&self.file, line, format!("peer {peer}: {message}")),
            None => Diagnostic::new(&self.file, line, message),
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Takes the warnings of a report on a peer along, and returns its errors.
    pub(super) fn absorb(&mut self, peer: Report) -> Vec<Diagnostic> {
        self.warnings.extend(peer.warnings);
        peer.errors
    }

    /// The errors and the warnings, in the order of the file.
    pub(super) fn finish(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        by_line(&mut self.warnings);
        (in_order(self.errors), self.warnings)
    }
}
