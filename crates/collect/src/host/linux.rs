//! What Linux tells in `/proc` and no portable library reads: processor time by mode, disk time, pressure.
//!
//! Each reader takes the file's text, so that its table of bad inputs is a test; a missing file is a missing part.

use super::Reading;
use std::collections::BTreeMap;

/// Modes of `/proc/stat`, in its order.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// Most disks that are told of.
const DISKS_MAX: usize = 64;

/// Processor time of the look before.
#[derive(Debug, Default)]
pub(super) struct CpuTimes {
    before: Option<[u64; 8]>,
}

impl CpuTimes {
    pub(super) fn read(&mut self, out: &mut Reading) {
        match std::fs::read_to_string("/proc/stat") {
            Ok(text) => self.take(&text, out),
            Err(e) => out.problem("processors", e),
        }
    }

    fn take(&mut self, text: &str, out: &mut Reading) {
        let Some(now) = cpu_times(text) else { return out.problem("processors", "/proc/stat has no line `cpu`") };
        let cores = text.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")).count();
        if cores > 0 {
            out.gauge("system_cpu_logical_count", &[], cores as f64);
        }
        let Some(before) = self.before.replace(now) else { return };
        // `iowait` may go back (proc(5)); such a step counts as none.
        let spent: Vec<u64> = now.iter().zip(before).map(|(n, b)| n.saturating_sub(b)).collect();
        let total = spent.iter().sum::<u64>() as f64;
        // Two looks within one tick of the kernel's clock: nothing is known, which is not zero.
        if total <= 0.0 {
            return;
        }
        for (mode, ticks) in MODES.iter().zip(&spent) {
            out.gauge("system_cpu_mode_utilization_ratio", &[("mode", mode)], *ticks as f64 / total);
        }
        // Waiting for a disk is not work, nor is what another guest took.
        let idle = (spent[3] + spent[4] + spent[7]) as f64;
        out.gauge("system_cpu_utilization_ratio", &[], (total - idle) / total);
    }
}

/// The eight modes of the line `cpu`; `guest` is part of `user` already.
fn cpu_times(text: &str) -> Option<[u64; 8]> {
    let mut numbers = text.lines().find_map(|l| l.strip_prefix("cpu "))?.split_ascii_whitespace();
    let mut times = [0; 8];
    for time in &mut times {
        *time = numbers.next()?.parse().ok()?;
    }
    Some(times)
}

/// Bytes, operations and busy time of each whole disk.
pub(super) fn disk_io(out: &mut Reading) {
    if !cfg!(target_os = "linux") {
        return;
    }
    match std::fs::read_to_string("/proc/diskstats") {
        Ok(text) => {
            for (device, io) in disks(&text).into_iter().take(DISKS_MAX) {
                for (direction, operations, bytes) in [("read", io[0], io[2] * 512), ("write", io[4], io[6] * 512)] {
                    let labels = [("device", device.as_str()), ("direction", direction)];
                    out.counter("system_disk_operations_total", &labels, operations as f64);
                    out.counter("system_disk_io_bytes_total", &labels, bytes as f64);
                }
                out.counter("system_disk_io_time_seconds_total", &[("device", &device)], io[9] as f64 / 1000.0);
            }
        }
        Err(e) => out.problem("disks", e),
    }
}

/// The first ten numbers of each whole disk that was ever used: `Documentation/admin-guide/iostats.rst`.
fn disks(text: &str) -> BTreeMap<String, [u64; 10]> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(2);
        let Some(device) = words.next() else { continue };
        let mut io = [0u64; 10];
        // Sectors are multiplied by 512 later: what would not fit is no disk of this world.
        let whole = io
            .iter_mut()
            .all(|n| words.next().and_then(|w| w.parse().ok()).filter(|v| *v < 1 << 54).map(|v| *n = v).is_some());
        let virtual_disk = ["loop", "ram", "zram", "sr", "fd"].iter().any(|p| device.starts_with(p));
        if whole && !virtual_disk && io[0] + io[4] > 0 {
            found.insert(device.to_owned(), io);
        }
    }
    // A partition's work is its disk's as well (sda1 of sda, nvme0n1p2 of nvme0n1): it is told once.
    let names: Vec<String> = found.keys().cloned().collect();
    found.retain(|name, _| {
        !names.iter().any(|disk| {
            let rest = name.strip_prefix(disk.as_str()).unwrap_or("");
            let number = rest.strip_prefix('p').unwrap_or(rest);
            // `md1` is no part of `md`, and there is no such disk; `dm-10` none of `dm-1`.
            let numbered = disk.ends_with(|c: char| c.is_ascii_digit());
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && (rest.len() > number.len()) == numbered
        })
    });
    found
}

/// Share of time in which some task waited (pressure stall information), over ten seconds. Absent on old kernels.
pub(super) fn pressure(out: &mut Reading) {
    for resource in ["cpu", "memory", "io"] {
        // Optional: a kernel without it, or a container that may not see it, is not broken.
        let Ok(text) = std::fs::read_to_string(format!("/proc/pressure/{resource}")) else { continue };
        if let Some(percent) = some_avg10(&text) {
            out.gauge(&format!("system_{resource}_pressure_ratio"), &[], percent / 100.0);
        }
    }
}

fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|l| l.strip_prefix("some "))?;
    let value: f64 = some.split_ascii_whitespace().find_map(|w| w.strip_prefix("avg10="))?.parse().ok()?;
    (0.0..=100.0).contains(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::Timestamp;
    use std::sync::Arc;

    fn reading() -> Reading {
        Reading { at: Timestamp::EPOCH, resource: Arc::default(), points: vec![], problems: vec![] }
    }

    fn value(out: &Reading, name: &str, label: Option<&str>) -> Option<f64> {
        let fits =
            |p: &&crate::MetricPoint| p.name == name && label.is_none_or(|l| p.labels.iter().any(|(_, v)| v == l));
        out.points.iter().find(fits).map(|p| p.value)
    }

    #[test]
    fn shares_of_processor_time() {
        let mut times = CpuTimes::default();
        let mut out = reading();
        times.take("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\ncpu1 1\n", &mut out);
        assert_eq!(value(&out, "system_cpu_utilization_ratio", None), None, "no share without a before");
        assert_eq!(value(&out, "system_cpu_logical_count", None), Some(2.0));
        times.take("cpu  150 0 110 830 10 0 0 0 0 0\n", &mut out);
        assert_eq!(value(&out, "system_cpu_utilization_ratio", None), Some(0.6));
        assert_eq!(value(&out, "system_cpu_mode_utilization_ratio", Some("user")), Some(0.5));
        // The same again: no time has passed.
        let mut out = reading();
        times.take("cpu  150 0 110 830 10 0 0 0 0 0\n", &mut out);
        assert_eq!(value(&out, "system_cpu_utilization_ratio", None), None);
    }

    #[test]
    fn bad_files_are_problems_or_nothing() {
        for text in ["", "cpu", "cpu  1 2 3", "cpu  a b c d e f g h", "cpu0 1 2 3 4 5 6 7 8", "cpu  -1 0 0 0 0 0 0 0"] {
            let mut out = reading();
            CpuTimes::default().take(text, &mut out);
            assert!(out.points.iter().all(|p| p.name == "system_cpu_logical_count"), "{text}");
            assert_eq!(out.problems.len(), 1, "{text}");
        }
        for text in [
            "",
            "8 0 sda",
            "8 0 sda 1 2 3",
            "8 0 sda x 0 0 0 0 0 0 0 0 0",
            "8 0 sda 99999999999999999 0 0 0 0 0 0 0 0 0",
        ] {
            assert!(disks(text).is_empty(), "{text}");
        }
        for text in ["", "some", "some avg10=x", "some avg10=NaN", "some avg10=101", "full avg10=1.0"] {
            assert_eq!(some_avg10(text), None, "{text}");
        }
        assert_eq!(some_avg10("some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00"), Some(1.5));
    }

    #[test]
    fn partitions_are_part_of_their_disk() {
        let line = |name: &str| format!("8 0 {name} 5 0 8 0 5 0 8 0 0 100 0\n");
        let names = ["sda", "sda1", "nvme0n1", "nvme0n1p2", "dm-1", "dm-10", "loop0", "vda1", "md0"];
        let text: String = names.iter().map(|n| line(n)).collect();
        let found: Vec<String> = disks(&text).into_keys().collect();
        assert_eq!(found, ["dm-1", "dm-10", "md0", "nvme0n1", "sda", "vda1"]);
        assert!(disks("7 0 sdb 0 0 0 0 0 0 0 0 0 0 0").is_empty(), "never used");
    }
}
