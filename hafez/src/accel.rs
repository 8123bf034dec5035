//! Whether the processor's own virtualization can run the machine.
//!
//! The device node alone proves little: it may exist in a guest whose processor has no virtualization, or be closed to this
//! user. So the flags in /proc/cpuinfo decide first, and then whether the node opens.

use std::fs;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    /// Emulation: QEMU translates each instruction.
    Tcg,
}

/// KVM, or why not.
pub fn kvm() -> Result<(), String> {
    let info = fs::read_to_string("/proc/cpuinfo").map_err(|e| format!("cannot read /proc/cpuinfo: {e}"))?;
    if !has_virtualization(&info) {
        return Err("this processor shows no virtualization flag (vmx or svm)".into());
    }
    fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map(drop)
        .map_err(|e| format!("/dev/kvm: {e}"))
}

fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("flags")?.split_once(':'))
        .is_some_and(|(_, flags)| flags.split_ascii_whitespace().any(|f| f == "vmx" || f == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_flags_of_the_flags_line_count() {
        assert!(has_virtualization("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualization("flags\t\t: svm\n"));
        assert!(!has_virtualization("flags\t\t: fpu vmx_x sse\nvmx flags\t: vnmi vmx\n"));
        assert!(!has_virtualization(""));
    }
}
