//! The text format of Prometheus.

use std::fmt::{Display, Write as _};

/// What a family's numbers mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is.
    Gauge,
    /// Counts of what was at most so large.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Labels of one sample: names and values.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics as it is written.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// Begins a family.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    }

    /// One sample of the family.
    pub(crate) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        self.text.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// A family with one sample.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The samples of one histogram of the family: `buckets` counts what fell between the bounds,
    /// and one more what was larger than all.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        labels: Labels<'_>,
        bounds: impl Iterator<Item = f64>,
        buckets: &[u64],
        sum: f64,
    ) {
        let mut below = 0;
        for (bound, count) in bounds.zip(buckets) {
            below += count;
            self.text.push_str(name);
            self.text.push_str("_bucket");
            self.labels(labels, Some(&bound.to_string()));
            let _ = writeln!(self.text, " {below}");
        }
        let count: u64 = buckets.iter().sum();
        self.text.push_str(name);
        self.text.push_str("_bucket");
        self.labels(labels, Some("+Inf"));
        let _ = writeln!(self.text, " {count}");
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }

    fn labels(&mut self, labels: Labels<'_>, bound: Option<&str>) {
        let bound = bound.map(|bound| ("le", bound));
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{separator}{name}=\"{value}\"");
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_head_and_samples() {
        let mut page = Page::default();
        page.single("a_total", Kind::Counter, "Things.", 3);
        page.family("b", Kind::Gauge, "Others.");
        page.sample("b", &[("x", "1\"2"), ("y", "")], 1.5);
        page.family("c", Kind::Histogram, "Durations.");
        page.histogram("c", &[("z", "1")], [0.001, 0.002].into_iter(), &[1, 2, 3], 0.25);
        assert_eq!(
            page.finish(),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n\
             # HELP b Others.\n# TYPE b gauge\nb{x=\"1\\\"2\",y=\"\"} 1.5\n\
             # HELP c Durations.\n# TYPE c histogram\n\
             c_bucket{z=\"1\",le=\"0.001\"} 1\nc_bucket{z=\"1\",le=\"0.002\"} 3\n\
             c_bucket{z=\"1\",le=\"+Inf\"} 6\nc_sum{z=\"1\"} 0.25\nc_count{z=\"1\"} 6\n"
        );
    }
}
