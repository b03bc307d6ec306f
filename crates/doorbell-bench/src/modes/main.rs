//! `modes`: what the ways to find completions cost, in latency and in CPU time.
//!
//! One thread is both the application and the device: it keeps reads of 4 KiB in flight, runs an emulated controller that takes a
//! set time for each command, and never sleeps. What finds the completions is the driver's own thread, on another CPU; its CPU time is
//! measured, while there is I/O, and while there is none. So nobody waits for a CPU where there are two.

mod threads;

use std::future::Future;
use std::io::Write;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table, presets};
use doorbell::{CompletionMode, DriverOptions, Namespace};
use doorbell_device::inprocess::{InProcess, Run};
use doorbell_emulator::{Controller, ControllerConfig, NamespaceConfig, Subsystem, emulated};

/// What the ways to find completions cost, in latency and in CPU time.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Measurements of each; the median is reported, with the spread.
    #[arg(long, default_value_t = 7)]
    samples: usize,
    /// How long each lasts, in milliseconds.
    #[arg(long, default_value_t = 200)]
    milliseconds: u64,
    /// Microseconds that the controller takes for a command; may be given several times.
    #[arg(long, default_values_t = [10, 80])]
    latency: Vec<u64>,
    /// Commands in flight; may be given several times.
    #[arg(long, default_values_t = [1, 32])]
    in_flight: Vec<usize>,
}

const MODES: [(&str, CompletionMode); 3] = [
    ("polling", CompletionMode::Polling),
    ("adaptive", CompletionMode::Adaptive),
    ("interrupt", CompletionMode::Interrupt),
];

/// One measurement.
struct Sample {
    /// Microseconds an I/O, on average.
    latency: f64,
    /// CPUs that the driver's threads use while there is I/O, and while there is none.
    busy: f64,
    idle: f64,
}

fn main() -> std::process::ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // The one place that writes to standard error.
            let _ = std::io::stderr().write_all(format!("modes: {error:#}\n").as_bytes());
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "the controller takes",
        "in flight",
        "completions by",
        "us an I/O (median)",
        "(min..max)",
        "times polling",
        "CPUs busy",
        "CPUs idle",
    ]);
    for latency in &arguments.latency {
        for in_flight in &arguments.in_flight {
            let mut samples = MODES.map(|_| Vec::new());
            // In turns, so that what else the machine does strikes all alike.
            for _ in 0..arguments.samples.max(1) {
                for (samples, (_, mode)) in samples.iter_mut().zip(MODES) {
                    samples.push(sample(mode, *latency, *in_flight, Duration::from_millis(arguments.milliseconds))?);
                }
            }
            let polling = median(&samples[0], |sample| sample.latency)[1];
            for (samples, (name, _)) in samples.iter().zip(MODES) {
                let [least, latency_us, most] = median(samples, |sample| sample.latency);
                let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
                table.add_row([
                    Cell::new(format!("{latency} us")),
                    number(in_flight.to_string()),
                    Cell::new(name),
                    number(format!("{latency_us:.1}")),
                    number(format!("{least:.1}..{most:.1}")),
                    number(format!("{:.2}", latency_us / polling)),
                    number(format!("{:.2}", median(samples, |sample| sample.busy)[1])),
                    number(format!("{:.3}", median(samples, |sample| sample.idle)[1])),
                ]);
            }
        }
    }
    writeln!(std::io::stdout().lock(), "{table}")?;
    Ok(())
}

/// The least, the median and the most.
fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> [f64; 3] {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    [0, values.len() / 2, values.len() - 1].map(|place| values[place])
}

fn sample(mode: CompletionMode, latency: u64, in_flight: usize, time: Duration) -> anyhow::Result<Sample> {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::null(1 << 30))?;
    let config = ControllerConfig { latency: Some(Duration::from_micros(latency)), ..ControllerConfig::default() };
    let machine = Machine { device: emulated(&subsystem, config, Run::Stepped)?, on_since: Instant::now() };
    let options = DriverOptions::new(machine.device.clone()).cpus(1).depth(64).completion(mode);
    let driver = machine.run(options.open())?;
    let namespace = machine.run(driver.namespace(1))?;
    // Makes the queue, and lets whatever adapts do so.
    machine.reads(&namespace, in_flight, time / 10)?;
    let (before, begun) = (threads::cpu_time()?, Instant::now());
    let done = machine.reads(&namespace, in_flight, time)?;
    let (elapsed, used) = (begun.elapsed(), threads::cpu_time()?.saturating_sub(before));
    // What was busy may need a moment to see that it is not.
    std::thread::sleep(time / 10);
    let (before, resting) = (threads::cpu_time()?, Instant::now());
    std::thread::sleep(time);
    let idle = threads::cpu_time()?.saturating_sub(before).as_secs_f64() / resting.elapsed().as_secs_f64();
    machine.run(driver.shutdown());
    Ok(Sample {
        latency: elapsed.as_secs_f64() * 1e6 * in_flight as f64 / done as f64,
        busy: used.as_secs_f64() / elapsed.as_secs_f64(),
        idle,
    })
}

/// The device, and who uses it, on one thread.
struct Machine {
    device: Arc<InProcess<Controller>>,
    on_since: Instant,
}

impl Machine {
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut task = Task::new();
        loop {
            if let Some(value) = task.poll(future.as_mut()) {
                return value;
            }
            self.device.step(self.on_since.elapsed());
        }
    }

    /// Keeps so many reads in flight for a while; how many were done.
    fn reads(&self, namespace: &Namespace, in_flight: usize, time: Duration) -> anyhow::Result<u64> {
        let end = Instant::now() + time;
        let one = async || {
            let (mut buffer, mut done) = (vec![0; 4096], 0_u64);
            while Instant::now() < end {
                namespace.read_slice(0, 0, &mut buffer).await?;
                done += 1;
            }
            anyhow::Ok(done)
        };
        let mut running: Vec<_> = (0..in_flight).map(|_| (Box::pin(one()), Task::new())).collect();
        let mut done = 0;
        while !running.is_empty() {
            let mut ended = Vec::new();
            for (index, (future, task)) in running.iter_mut().enumerate() {
                if let Some(result) = task.poll(future.as_mut()) {
                    done += result?;
                    ended.push(index);
                }
            }
            for index in ended.into_iter().rev() {
                drop(running.swap_remove(index));
            }
            self.device.step(self.on_since.elapsed());
        }
        Ok(done)
    }
}

/// Whether a future is to be polled.
struct Task {
    woken: Arc<Woken>,
    waker: Waker,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Task {
    fn new() -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Self { waker: Waker::from(woken.clone()), woken }
    }

    /// Polls a future that was woken.
    fn poll<T>(&mut self, future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        if !self.woken.0.swap(false, Ordering::Acquire) {
            return None;
        }
        match future.poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }
}
