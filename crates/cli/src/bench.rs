//! Putting a cluster under load, ours or any other one that speaks the API, and measuring what it does.
//!
//! The loop is closed: a client makes its next call when the last one was answered, so what is measured is what a cluster
//! can do with so many clients. With `--rate`, calls are due at fixed times instead, and latencies are those of an offered
//! load.

mod calls;
mod connection;
mod fill;
mod histogram;
mod keys;
mod lease;
mod process;
mod report;
mod run;
mod watch;
mod work;

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::calls::Calls;
use self::keys::Data;
use self::run::{Load, Settings};
use crate::client::{Common, Failure, Form, output, refuse_secrets};

/// `bench`.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Write every key once, so that reads find them
    Fill(fill::Fill),
    /// Write keys
    Put(calls::Put),
    /// Read keys, one or some neighbours at a time
    Range(calls::Range),
    /// Compare and swap: replace values that are known not to have changed
    Txn(calls::Txn),
    /// Read and write keys
    Mixed(calls::Mixed),
    /// Write one key, and tell many watchers
    Watch(watch::Watch),
    /// Keep leases alive
    Lease(lease::Lease),
}

impl Bench {
    /// Runs it, and prints what it has shown.
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        refuse_secrets()?;
        if common.write_out == Form::Fields {
            return Err(report::no_fields());
        }
        let (about, settings, load): (Value, Settings, Arc<dyn Load>) = match self.command {
            Command::Fill(fill) => return show_fill(&fill.run(common)?, common.write_out),
            Command::Put(put) => {
                (about("put", &put.data), put.settings.clone(), calls(Calls::Put(put))?)
            }
            Command::Range(range) => {
                let mut about = about("range", &range.data);
                about["width"] = json!(range.width);
                about["serializable"] = json!(range.serializable);
                (about, range.settings.clone(), calls(Calls::Range(range))?)
            }
            Command::Txn(txn) => {
                (about("txn", &txn.data), txn.settings.clone(), calls(Calls::Txn(txn))?)
            }
            Command::Mixed(mixed) => {
                let mut about = about("mixed", &mixed.data);
                about["reads_percent"] = json!(mixed.reads);
                about["serializable"] = json!(mixed.serializable);
                (about, mixed.settings.clone(), calls(Calls::Mixed(mixed))?)
            }
            Command::Watch(watch) => {
                watch.check()?;
                let about = json!({
                    "benchmark": "watch",
                    "watchers": watch.watchers,
                    "streams": watch.streams,
                    "value_bytes": watch.value_size,
                });
                (about, watch.settings.clone(), Arc::new(watch))
            }
            Command::Lease(lease) => {
                lease.check()?;
                let about = json!({ "benchmark": "lease", "ttl": lease.ttl });
                (about, lease.settings.clone(), Arc::new(lease))
            }
        };
        let outcome = run::run(load, &settings, common)?;
        report::print(&outcome, &settings, &about, common.write_out)?;
        if outcome.operations == 0 {
            let why = outcome.tally.errors.into_values().next();
            let why = why.map_or("nothing was answered in time".to_owned(), |(_, words)| words);
            return Err(Failure::Unhealthy(format!("no operation succeeded: {why}")));
        }
        Ok(())
    }
}

fn calls(calls: Calls) -> Result<Arc<dyn Load>, Failure> {
    calls.check()?;
    Ok(Arc::new(calls))
}

fn about(name: &str, data: &Data) -> Value {
    json!({
        "benchmark": name,
        "keys": data.keys,
        "key_bytes": data.key_size,
        "value_bytes": data.value_size,
        "distribution": format!("{:?}", data.distribution).to_lowercase(),
    })
}

fn show_fill(result: &Value, form: Form) -> Result<(), Failure> {
    match form {
        Form::Json => output::object(result),
        _ => output::line(format!(
            "{} keys written in {:.2} s",
            result["keys"],
            result["seconds"].as_f64().unwrap_or(0.0)
        )),
    }
}
