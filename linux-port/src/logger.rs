//! Log messages on stderr, one line each.
//!
//! Under systemd the lines begin with a syslog level (`<4>`), which the journal takes off again.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Sends what the `log` macros say to stderr: from `info` up, with `verbose` from `debug` up. A
/// second call has no effect.
pub fn init(verbose: bool) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    if log::set_boxed_logger(Box::new(Logger { journal })).is_ok() {
        log::set_max_level(if verbose { LevelFilter::Debug } else { LevelFilter::Info });
    }
}

struct Logger {
    journal: bool,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(self.journal, record.level(), &record.args().to_string());
            // Nobody is left to tell that stderr is gone.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(journal: bool, level: Level, message: &str) -> String {
    let prefix = match (journal, level) {
        (true, Level::Error) => "<3>",
        (true, Level::Warn) => "<4>",
        (true, Level::Info) => "<6>",
        (true, Level::Debug | Level::Trace) => "<7>",
        (false, Level::Error) => "error: ",
        (false, Level::Warn) => "warning: ",
        (false, _) => "",
    };
    [prefix, &one_line(message), "\n"].concat()
}

/// `text` with its control characters escaped: what it quotes from outside gets no line of its own,
/// and no terminal obeys it.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(line(false, Level::Info, "up"), "up\n");
        assert_eq!(line(false, Level::Warn, "a\nb\x1b[0m"), "warning: a\\nb\\u{1b}[0m\n");
        assert_eq!(line(true, Level::Error, "down"), "<3>down\n");
    }
}
