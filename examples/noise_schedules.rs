//! Plots the linear and the cosine noise schedule: `cargo run --example noise_schedules` writes
//! `docs/noise-schedules.svg`.

use std::fmt::Write as _;

use latentd::diffusion::{SchedulerConfig, betas::Betas};
use serde_json::{Value, json};

#[allow(dead_code, reason = "a test draws the plot without writing it")]
fn main() -> std::io::Result<()> {
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/noise-schedules.svg"), svg())
}

/// The schedules: (`beta_schedule` of diffusers, label, color).
const SCHEDULES: [(&str, &str, &str); 2] =
    [("linear", "linear", "#2563eb"), ("squaredcos_cap_v2", "cosine", "#d97706")];

/// Number of training timesteps.
const T: usize = 1000;

/// Corner and size of a panel, in pixels.
#[derive(Clone, Copy)]
struct Panel {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// Draws two panels: the signal that is left at each timestep, and the noise that each step adds, on a logarithmic
/// scale.
pub fn svg() -> String {
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 320\" width=\"760\" height=\"320\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Linear and cosine noise schedules</title>\n\
         <rect width=\"760\" height=\"320\" fill=\"#fff\"/>\n",
    );
    let signal = Panel { left: 60.0, top: 40.0, width: 300.0, height: 220.0 };
    let noise = Panel { left: 440.0, ..signal };
    let shares = [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")];
    let powers = [(0.0, "0.0001"), (0.25, "0.001"), (0.5, "0.01"), (0.75, "0.1"), (1.0, "1")];
    frame(&mut svg, signal, "signal left, ᾱ(t)", &shares);
    frame(&mut svg, noise, "noise added by a step, β(t)", &powers);
    for (i, (schedule, name, color)) in SCHEDULES.into_iter().enumerate() {
        let betas = betas(schedule);
        curve(&mut svg, signal, color, betas.alphas_cumprod(), f64::from);
        // The scale has four powers of ten, from 0.0001 to 1.
        curve(&mut svg, noise, color, betas.betas(), |beta| (libm::log10(f64::from(beta)) + 4.0) / 4.0);
        let x = 300.0 + 90.0 * i as f64;
        line(&mut svg, color, [(x, 305.0), (x + 24.0, 305.0)]);
        text(&mut svg, x + 30.0, 309.0, "start", name);
    }
    svg + "</svg>\n"
}

/// A schedule by its name in diffusers: `linear` (Ho et al. 2020) or `squaredcos_cap_v2` (Nichol and Dhariwal 2021).
fn betas(schedule: &str) -> Betas {
    let Value::Object(model) = json!({
        "_class_name": "DDPMScheduler", "beta_schedule": schedule, "num_train_timesteps": T,
        "beta_start": 0.0001, "beta_end": 0.02,
    }) else {
        unreachable!("an object is written above")
    };
    SchedulerConfig::from_model(&model).expect("a known class with legal keys").betas().clone()
}

fn frame(svg: &mut String, panel: Panel, title: &str, ticks: &[(f64, &str)]) {
    let Panel { left, top, width, height } = panel;
    text(svg, left + width / 2.0, top - 14.0, "middle", title);
    for (share, label) in ticks {
        let y = top + height * (1.0 - share);
        line(svg, "#ddd", [(left, y), (left + width, y)]);
        text(svg, left - 8.0, y + 4.0, "end", label);
    }
    for t in (0..=T).step_by(250) {
        let x = left + width * t as f64 / T as f64;
        line(svg, "#ddd", [(x, top), (x, top + height)]);
        text(svg, x, top + height + 18.0, "middle", &t.to_string());
    }
    text(svg, left + width + 8.0, top + height + 18.0, "start", "t");
}

/// Draws every tenth value and the last. `share` maps a value to its height, from 0 (bottom) to 1 (top).
fn curve(svg: &mut String, panel: Panel, color: &str, values: &[f32], share: impl Fn(f32) -> f64) {
    let Panel { left, top, width, height } = panel;
    let steps = (0..values.len()).step_by(10).chain([values.len() - 1]);
    let points = steps.map(|t| {
        let x = left + width * (t + 1) as f64 / values.len() as f64;
        format!("{x:.1},{:.1}", top + height * (1.0 - share(values[t]).clamp(0.0, 1.0)))
    });
    let points = points.collect::<Vec<_>>().join(" ");
    push(svg, format_args!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\n"));
}

fn line(svg: &mut String, color: &str, [(x1, y1), (x2, y2)]: [(f64, f64); 2]) {
    let ends = format_args!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"");
    push(svg, format_args!("<line {ends} stroke=\"{color}\" stroke-width=\"1.5\"/>\n"));
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    push(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#333\">{text}</text>\n"));
}

fn push(svg: &mut String, what: std::fmt::Arguments<'_>) {
    svg.write_fmt(what).expect("a string takes everything");
}
