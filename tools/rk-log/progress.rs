//! A progress bar on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// How far a long work is, in bytes.
pub(crate) struct Progress {
    bar: ProgressBar,
    done: u64,
    drawn: u64,
}

/// Bytes between two looks at the bar.
const STEP_BYTES: u64 = 1 << 20;

impl Progress {
    /// Begins; `what` stands in front of the bar. Hidden by itself where there is no terminal.
    pub(crate) fn new(what: &'static str, total_bytes: u64) -> Self {
        let bar = ProgressBar::new(total_bytes);
        let style = ProgressStyle::with_template(
            "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        Self { bar, done: 0, drawn: 0 }
    }

    /// This many more bytes are done.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if self.drawn + STEP_BYTES <= self.done {
            self.drawn = self.done;
            self.bar.set_position(self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
