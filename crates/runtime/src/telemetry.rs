//! Logs and metrics: set up once by the binary, written by everyone.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Bounds in seconds of histogram buckets for latencies from a millisecond to minutes.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Bounds of histogram buckets for counts: tokens, batch sizes.
const COUNTS: [f64; 14] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Coloured lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not in `tracing`'s language.
    #[error("log filter `{filter}`: {reason}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logs or metrics were set up before.
    #[error("telemetry: {reason}")]
    Twice {
        /// What is there already.
        reason: String,
    },
}

/// Sends logs of this process to standard error.
///
/// # Errors
/// If `filter` (such as `info,helios_proxy=debug`) does not parse, or logging was set up before.
pub fn init_logs(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let directives = EnvFilter::try_new(filter)
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(directives).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Auto if !terminal => builder.json().flatten_event(true).try_init(),
        LogFormat::Auto | LogFormat::Human => builder.with_ansi(terminal).with_target(false).try_init(),
    };
    done.map_err(|error| TelemetryError::Twice { reason: error.to_string() })
}

/// Renders the metrics of this process for `/metrics`. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Collects the metrics of this process from now on.
    ///
    /// # Errors
    /// If metrics were set up before.
    pub fn install() -> Result<Self, TelemetryError> {
        let twice = |reason: String| TelemetryError::Twice { reason };
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|builder| builder.set_buckets(&COUNTS))
            .map_err(|error| twice(error.to_string()))?
            .install_recorder()
            .map_err(|error| twice(error.to_string()))?;
        Ok(Self(handle))
    }

    /// The text exposition format. O(series).
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
