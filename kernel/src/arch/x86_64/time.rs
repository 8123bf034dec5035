//! The clock: the time-stamp counter, scaled to nanoseconds since the machine's reset.
//!
//! How fast the counter runs, the command line tells (`hafez.tsc_hz`: the host knows, and with deterministic time it
//! is 10^9 by definition). Without it, the counter is held against the local APIC's timer, which counts nanoseconds under
//! the hypervisors we know.

use super::{apic, boot, cpu, percpu, regs};
use core::sync::atomic::{AtomicU64, Ordering};

const NS_PER_SECOND: u64 = 1_000_000_000;
/// How long to measure: a thousandth of a second gives about as many digits.
const CALIBRATE_NS: u32 = 1_000_000;

static TSC_HZ: AtomicU64 = AtomicU64::new(NS_PER_SECOND);
/// Nanoseconds a tick, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);
/// APIC timer ticks a nanosecond, times 2^32.
static APIC_PER_NS: AtomicU64 = AtomicU64::new(1 << 32);

pub(super) fn init(told: Option<u64>) {
    let hz = told.filter(|&hz| hz >= 1_000_000).unwrap_or_else(measure_tsc);
    TSC_HZ.store(hz, Ordering::Relaxed);
    NS_PER_TICK.store((((NS_PER_SECOND as u128) << 32) / hz as u128) as u64, Ordering::Relaxed);
    if !cpu::features().tsc_deadline && !cpu::features().apic_ns {
        measure_apic();
    }
}

fn measure_tsc() -> u64 {
    if !cpu::features().apic_ns {
        boot::cannot_start("unknown hypervisor: the speed of the clock must be told (hafez.tsc_hz=…)");
    }
    apic::mask_timer(true);
    apic::set_count(u32::MAX);
    let (tsc, count) = (regs::rdtsc(), apic::count());
    while count - apic::count() < CALIBRATE_NS {}
    let (ticks, ns) = (regs::rdtsc() - tsc, count - apic::count());
    apic::set_count(0);
    apic::init();
    (ticks as u128 * NS_PER_SECOND as u128 / ns as u128) as u64
}

fn measure_apic() {
    apic::mask_timer(true);
    apic::set_count(u32::MAX);
    let (from, count) = (now_ns(), apic::count());
    while now_ns() - from < 50_000 {}
    let (ns, ticks) = (now_ns() - from, count - apic::count());
    apic::set_count(0);
    apic::init();
    APIC_PER_NS.store((((ticks as u128) << 32) / ns as u128) as u64, Ordering::Relaxed);
}

#[inline(always)]
fn scale(value: u64, factor: u64) -> u64 {
    ((value as u128 * factor as u128) >> 32) as u64
}

/// Nanoseconds since the machine's reset; never goes back.
#[inline(always)]
pub fn now_ns() -> u64 {
    scale(regs::rdtsc(), NS_PER_TICK.load(Ordering::Relaxed))
}
/// Nanoseconds a tick of the time-stamp counter, times 2^32.
pub(super) fn ns_per_tick() -> u64 {
    NS_PER_TICK.load(Ordering::Relaxed)
}
/// Ticks of the time-stamp counter per second.
pub fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}
/// Interrupt this CPU at the time given (`None`: no more); the last call counts. It may come early by rounding, or
/// because the timer cannot count that far: look at the clock and set it again. For `sched` alone.
pub fn set_deadline(ns: Option<u64>) {
    percpu::this().deadline.set(ns.unwrap_or(u64::MAX));
    set_timer(ns);
}

/// Sleep, with interrupts off but for requests of other CPUs, until one comes or so many nanoseconds have passed.
pub(super) fn nap(ns: u64) {
    let area = percpu::this();
    area.napping.set(true);
    apic::only_requests(true);
    set_timer(Some(now_ns() + ns));
    cpu::halt_with_interrupts();
    apic::only_requests(false);
    area.napping.set(false);
    // If its time has passed meanwhile, it comes as soon as interrupts may.
    let due = area.deadline.get();
    set_timer((due != u64::MAX).then_some(due));
}

fn set_timer(ns: Option<u64>) {
    let Some(ns) = ns else {
        return disarm();
    };
    if cpu::features().tsc_deadline {
        let ticks = (ns as u128 * tsc_hz() as u128 / NS_PER_SECOND as u128) as u64;
        // SAFETY: the timer is in this mode; 0 would disarm it.
        unsafe { regs::write_msr(regs::TSC_DEADLINE, ticks.max(1)) };
    } else {
        let wait = ns.saturating_sub(now_ns());
        let ticks = scale(wait, APIC_PER_NS.load(Ordering::Relaxed)).saturating_add(1);
        apic::set_count(ticks.min(u32::MAX as u64) as u32);
    }
}

fn disarm() {
    if cpu::features().tsc_deadline {
        // SAFETY: as above.
        unsafe { regs::write_msr(regs::TSC_DEADLINE, 0) };
    } else {
        apic::set_count(0);
    }
}
