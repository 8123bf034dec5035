//! `/proc/config.gz`: how the kernel was configured, in Linux's words.
//!
//! Test suites and installers look here for what they may expect, and give up where it is missing. So what is here says `y`, and what
//! programs ask for and is not here is said to be unset, though nothing was configured: this kernel has one shape only.
//!
//! The file is gzip's (RFC 1952) around one stored block of deflate (RFC 1951): nobody gains by two kilobytes less.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What is here.
const SET: &str = "64BIT X86_64 X86 MMU SMP MULTIUSER SYSVIPC SYSVIPC_SYSCTL POSIX_MQUEUE POSIX_MQUEUE_SYSCTL CROSS_MEMORY_ATTACH \
    NO_HZ_IDLE HIGH_RES_TIMERS TICK_CPU_ACCOUNTING CHECKPOINT_RESTORE SYSCTL FHANDLE POSIX_TIMERS PRINTK BUG ELF_CORE FUTEX FUTEX_PI \
    EPOLL SIGNALFD TIMERFD EVENTFD SHMEM AIO ADVISE_SYSCALLS MEMBARRIER KCMP RSEQ CACHESTAT_SYSCALL PROC_FS PROC_SYSCTL \
    PROC_PAGE_MONITOR PROC_CHILDREN SYSFS SYSFS_SYSCALL TMPFS TMPFS_XATTR DEVTMPFS INOTIFY_USER FILE_LOCKING BINFMT_ELF \
    BINFMT_SCRIPT COREDUMP MODIFY_LDT_SYSCALL X86_VSYSCALL_EMULATION LEGACY_VSYSCALL_XONLY SECCOMP SECCOMP_FILTER SWAP NUMA \
    MIGRATION TRANSPARENT_HUGEPAGE TRANSPARENT_HUGEPAGE_ALWAYS ANON_VMA_NAME USERFAULTFD HAVE_ARCH_USERFAULTFD_WP \
    STRICT_KERNEL_RWX NET UNIX INET IPV6 TTY UNIX98_PTYS VIRTIO VIRTIO_MMIO VIRTIO_BLK VIRTIO_NET VIRTIO_CONSOLE HW_RANDOM_VIRTIO \
    NET_9P NET_9P_VIRTIO 9P_FS IKCONFIG IKCONFIG_PROC";

/// What programs ask for, and is not.
const UNSET: &str = "IA32_EMULATION X86_X32_ABI COMPAT MODULES NAMESPACES UTS_NS IPC_NS USER_NS PID_NS NET_NS TIME_NS CGROUPS MEMCG \
    CPUSETS CGROUP_SCHED RT_GROUP_SCHED SCHED_AUTOGROUP BSD_PROCESS_ACCT TASKSTATS AUDIT KEYS BPF_SYSCALL PERF_EVENTS FTRACE KPROBES \
    IO_URING FANOTIFY QUOTA QUOTACTL BLK_DEV_LOOP EXT4_FS XFS_FS BTRFS_FS FUSE_FS OVERLAY_FS HUGETLBFS HUGETLB_PAGE KSM \
    MEMORY_FAILURE SECRETMEM LANDLOCK SECURITY SECURITY_YAMA SECURITY_SELINUX SECURITY_APPARMOR FS_VERITY FS_ENCRYPTION TMPFS_POSIX_ACL \
    PACKET NETFILTER XFRM VLAN_8021Q BRIDGE TUN VETH CAN VSOCKETS TLS KVM KALLSYMS KCOV KASAN LOCKDEP PROVE_LOCKING \
    DEBUG_FS FAULT_INJECTION KEXEC HOTPLUG_CPU CPU_FREQ X86_INTEL_MEMORY_PROTECTION_KEYS X86_USER_SHADOW_STACK PREEMPT_RT";

/// The text: a line an option.
fn text() -> String {
    let mut text = String::from("#\n# Hafez: what of Linux is here\n#\n");
    for name in SET.split_whitespace() {
        text += &format!("CONFIG_{name}=y\n");
    }
    text += "CONFIG_NR_CPUS=16\nCONFIG_DEFAULT_MMAP_MIN_ADDR=65536\n";
    for name in UNSET.split_whitespace() {
        text += &format!("# CONFIG_{name} is not set\n");
    }
    text
}

/// The file.
pub fn packed() -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    const LAST_STORED: u8 = 1;
    let text = text();
    let mut file = Vec::from(HEADER);
    // Far below the 65,535 bytes that a stored block may have.
    let len = text.len() as u16;
    file.push(LAST_STORED);
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&(!len).to_le_bytes());
    file.extend_from_slice(text.as_bytes());
    file.extend_from_slice(&checksum(text.as_bytes()).to_le_bytes());
    file.extend_from_slice(&(text.len() as u32).to_le_bytes());
    file
}

/// CRC-32 as gzip has it: reflected, of the polynomial 0x04c11db7.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |rest: u32, _| if rest & 1 == 0 { rest >> 1 } else { rest >> 1 ^ 0xedb8_8320 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}
