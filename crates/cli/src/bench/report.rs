//! What a run has shown, for people and for programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::histogram::Histogram;
use super::run::{Outcome, Settings};
use crate::client::output::{self, size, table};
use crate::client::{Failure, Form};

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// Prints what a run has shown. What ran is described by `about`.
pub(crate) fn print(
    outcome: &Outcome,
    settings: &Settings,
    about: &Value,
    form: Form,
) -> Result<(), Failure> {
    match form {
        Form::Json => output::object(&object(outcome, settings, about)),
        Form::Simple => output::print(text(outcome, settings, about, false).as_bytes()),
        Form::Table => output::print(text(outcome, settings, about, true).as_bytes()),
        Form::Fields => Err(no_fields()),
    }
}

/// What is said instead of fields.
pub(crate) fn no_fields() -> Failure {
    Failure::Input("bench prints no fields; use -o simple, json or table".to_owned())
}

#[allow(clippy::cast_precision_loss, reason = "a count of what happened in seconds")]
fn per_second(count: u64, settings: &Settings) -> f64 {
    count as f64 / settings.duration.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "a count of what happened in seconds")]
fn per_operation_us(time: Duration, operations: u64) -> Option<f64> {
    (operations > 0).then(|| time.as_secs_f64() * 1e6 / operations as f64)
}

fn object(outcome: &Outcome, settings: &Settings, about: &Value) -> Value {
    let latency = |histogram: &Histogram| {
        let mut latency = Map::new();
        latency.insert("min".to_owned(), json!(histogram.min_us()));
        latency.insert("mean".to_owned(), json!(histogram.mean_us()));
        for (name, share) in QUANTILES {
            latency.insert(name.to_owned(), json!(histogram.quantile_us(share)));
        }
        latency.insert("max".to_owned(), json!(histogram.max_us()));
        Value::Object(latency)
    };
    let mut results = Map::new();
    for (name, histogram) in outcome.kinds.iter().zip(&outcome.tally.kinds) {
        let result = json!({
            "count": histogram.count(),
            "per_second": per_second(histogram.count(), settings),
            "latency_us": latency(histogram),
        });
        results.insert((*name).to_owned(), result);
    }
    let errors: Map<String, Value> = outcome
        .tally
        .errors
        .iter()
        .map(|(code, (count, words))| (code.clone(), json!({ "count": count, "first": words })))
        .collect();
    let cpu = |time: Duration| {
        json!({
            "cpu_us": time.as_micros() as u64,
            "cpu_us_per_operation": per_operation_us(time, outcome.operations),
        })
    };
    let mut whole = about.clone();
    let fields = json!({
        "clients": settings.clients,
        "connections": outcome.connections,
        "threads": settings.threads,
        "rate": settings.rate,
        "seconds": settings.duration.as_secs_f64(),
        "operations": outcome.operations,
        "operations_per_second": per_second(outcome.operations, settings),
        "results": results,
        "errors": errors,
        "unanswered": outcome.tally.unanswered,
        "longest_gap_us": outcome.tally.gap.as_micros() as u64,
        "generator": outcome.own_cpu.map(cpu),
        "servers": outcome.servers.as_ref().map(|(time, memory)| {
            let mut servers = cpu(*time);
            servers["resident_bytes"] = json!(memory);
            servers
        }),
    });
    if let (Value::Object(whole), Value::Object(fields)) = (&mut whole, fields) {
        whole.extend(fields);
    }
    whole
}

fn text(outcome: &Outcome, settings: &Settings, about: &Value, drawn: bool) -> String {
    let mut text = String::new();
    let what = about.as_object().map(|about| {
        let words = about.iter().map(|(name, value)| match value {
            Value::String(value) => format!("{name}={value}"),
            value => format!("{name}={value}"),
        });
        words.collect::<Vec<_>>().join(" ")
    });
    text.push_str(&format!(
        "{} clients={} connections={} seconds={}\n",
        what.unwrap_or_default(),
        settings.clients,
        outcome.connections,
        settings.duration.as_secs_f64()
    ));
    let rows: Vec<Vec<String>> = outcome
        .kinds
        .iter()
        .zip(&outcome.tally.kinds)
        .map(|(name, histogram)| {
            let mut row = vec![
                (*name).to_owned(),
                histogram.count().to_string(),
                format!("{:.0}", per_second(histogram.count(), settings)),
            ];
            let quantiles = QUANTILES.map(|(_, share)| histogram.quantile_us(share));
            let spans = [histogram.mean_us()].into_iter().chain(quantiles);
            row.extend(spans.chain([histogram.max_us()]).map(span));
            row
        })
        .collect();
    let head = ["OPERATION", "COUNT", "PER SECOND", "MEAN", "P50", "P90", "P99", "P99.9", "MAX"];
    text.push_str(&table(&head, &rows, drawn));
    for (code, (count, words)) in &outcome.tally.errors {
        text.push_str(&format!("errors: {count} {code}, the first: {words}\n"));
    }
    if outcome.tally.unanswered > 0 {
        text.push_str(&format!("without an answer at the end: {}\n", outcome.tally.unanswered));
    }
    text.push_str(&format!(
        "longest time without a success: {}\n",
        span(micros(outcome.tally.gap))
    ));
    let cpu = |time| match per_operation_us(time, outcome.operations) {
        Some(each) => format!("{each:.1} us"),
        None => "-".to_owned(),
    };
    if let Some((time, memory)) = &outcome.servers {
        let memory: Vec<String> = memory.iter().map(|bytes| size(*bytes)).collect();
        text.push_str(&format!(
            "servers: {} of CPU per operation; memory: {}\n",
            cpu(*time),
            memory.join(", ")
        ));
    }
    if let Some(time) = outcome.own_cpu {
        text.push_str(&format!("generator: {} of CPU per operation\n", cpu(time)));
    }
    text
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A span of time for people.
fn span(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.0} us")
    } else if us < 100_000.0 {
        format!("{:.2} ms", us / 1000.0)
    } else {
        format!("{:.2} s", us / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_few_digits() {
        for (us, text) in [(12.3, "12 us"), (1234.5, "1.23 ms"), (2_500_000.0, "2.50 s")] {
            assert_eq!(span(us), text);
        }
    }
}
