//! The cumulative curves as a picture.

use std::fmt::Write;

use super::Outcome;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const PLOT_WIDTH: f64 = 600.0;
const PLOT_HEIGHT: f64 = 320.0;
/// The axis of time is logarithmic, from 10 ms to 100 s.
const DECADES: f64 = 4.0;

const COLOURS: [&str; 12] = [
    "#888888", "#d62728", "#ff7f0e", "#2ca02c", "#17becf", "#1f77b4", "#9467bd", "#8c564b",
    "#e377c2", "#bcbd22", "#000000", "#555599",
];

/// Draws the outcomes as an SVG: the share of trials that had a leader again, over time.
#[must_use]
pub fn draw(outcomes: &[Outcome]) -> String {
    let mut svg = String::new();
    let mut line = |text: &str| {
        svg.push_str(text);
        svg.push('\n');
    };
    line(&format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    ));
    line(&format!(r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#));
    line(&format!(
        r#"<text x="{LEFT}" y="24" font-size="14">Time from the crash of a leader to the next one (cumulative share of trials)</text>"#
    ));
    for decade in 0..=DECADES as u32 {
        let ms = 10f64 * 10f64.powi(decade as i32);
        let x = x_of(ms);
        let bottom = TOP + PLOT_HEIGHT;
        line(&format!(r##"<path d="M{x:.1} {TOP}V{bottom}" stroke="#dddddd"/>"##));
        let label = if ms < 1000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1000.0) };
        line(&format!(
            r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#,
            bottom + 18.0
        ));
    }
    for tenth in (0..=10).step_by(2) {
        let y = y_of(f64::from(tenth) / 10.0);
        let right = LEFT + PLOT_WIDTH;
        line(&format!(r##"<path d="M{LEFT} {y:.1}H{right}" stroke="#dddddd"/>"##));
        line(&format!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{} %</text>"#,
            LEFT - 8.0,
            y + 4.0,
            tenth * 10
        ));
    }
    for (place, outcome) in outcomes.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let path = path_of(outcome);
        line(&format!(r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#));
        let y = TOP + 12.0 + 20.0 * place as f64;
        let x = LEFT + PLOT_WIDTH + 20.0;
        line(&format!(
            r#"<path d="M{x} {y:.1}h20" stroke="{colour}" stroke-width="3"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            x + 26.0,
            y + 4.0,
            outcome.curve.name
        ));
    }
    line("</svg>");
    svg
}

fn x_of(ms: f64) -> f64 {
    LEFT + PLOT_WIDTH * ((ms / 10.0).log10() / DECADES).clamp(0.0, 1.0)
}

fn y_of(share: f64) -> f64 {
    TOP + PLOT_HEIGHT * (1.0 - share)
}

/// At most a few hundred points a curve.
fn path_of(outcome: &Outcome) -> String {
    let all = outcome.times_us.len() + outcome.unfinished as usize;
    let stride = (outcome.times_us.len() / 200).max(1);
    let mut path = format!("M{:.1} {:.1}", x_of(10.0), y_of(0.0));
    for (place, us) in outcome.times_us.iter().enumerate() {
        if place % stride == 0 || place + 1 == outcome.times_us.len() {
            let share = (place + 1) as f64 / all as f64;
            // Writing to a string cannot fail.
            let _ = write!(path, "L{:.1} {:.1}", x_of(*us as f64 / 1000.0), y_of(share));
        }
    }
    path
}
