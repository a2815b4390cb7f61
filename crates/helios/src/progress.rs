//! Progress of a pull: a bar with rate and remaining time on a terminal, lines otherwise.

use std::io::IsTerminal;

use helios_registry::{Phase, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Says that something is going on whose end is not known.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_message(what);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

/// Shows the bytes of one file after the other.
pub(crate) struct PullProgress {
    bar: ProgressBar,
    what: String,
}

impl PullProgress {
    /// A bar on standard error; hidden when that is no terminal, where phases become lines.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        Self { bar, what: String::new() }
    }

    /// Takes the newest state in.
    pub(crate) fn report(&mut self, progress: &Progress) {
        let what = match progress.phase {
            Phase::Resolving => "asking the source".to_owned(),
            Phase::Downloading => format!("fetching {}", progress.file),
            Phase::Copying => format!("copying {}", progress.file),
            Phase::Converting => format!("writing {}", progress.file),
            Phase::Importing => "reading headers".to_owned(),
            Phase::Exporting => format!("writing {}", progress.file),
            Phase::Unpacking => format!("unpacking {}", progress.file),
        };
        if self.what != what {
            self.bar.set_message(what.clone());
            self.bar.reset();
            if !std::io::stderr().is_terminal() {
                eprintln!("{what}");
            }
            self.what = what;
        }
        self.bar.set_length(progress.total.unwrap_or(0));
        self.bar.set_position(progress.done);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
