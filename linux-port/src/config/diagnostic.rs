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

/// Collects the diagnostics of one file.
pub(super) struct Report {
    file: String,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), errors: Vec::new(), warnings: Vec::new() }
    }

    /// A report on the same file, for what nobody wants to hear about.
    pub(super) fn silent(&self) -> Self {
        Self::new(&self.file)
    }

    pub(super) fn error(&mut self, line: usize, message: impl Into<String>) {
        self.errors.push(Diagnostic::new(&self.file, line, message));
    }

    pub(super) fn warning(&mut self, line: usize, message: impl Into<String>) {
        self.warnings.push(Diagnostic::new(&self.file, line, message));
    }

    /// The warnings, or the errors if there are any, in the order of the file.
    pub(super) fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        self.warnings.sort_by_key(|warning| warning.line);
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort_by_key(|error| error.line);
        let more = self.errors.len().saturating_sub(MAX_ERRORS);
        self.errors.truncate(MAX_ERRORS);
        if more > 0 {
            let message = format!("{more} more errors; correct these first");
            self.errors.push(Diagnostic::new(&self.file, 0, message));
        }
        Err(self.errors)
    }
}
