//! What a system call says when it fails: a Linux error number, as a type of its own.
//!
//! `errno(3)` lists what each means. Four more, which never reach a program, tell the layer that delivers signals how an
//! interrupted call goes on (`signal(7)`, "Interruption of system calls"):
//!
//! | code | after a handler ran | with no handler to run |
//! |---|---|---|
//! | [`Errno::RESTART`] | again if `SA_RESTART`, else `EINTR` | again |
//! | [`Errno::RESTART_NOHAND`] | `EINTR` | again |
//! | [`Errno::RESTART_NOINTR`] | again | again |
//! | [`Errno::RESTART_BLOCK`] | `EINTR` | `restart_syscall` with what is left of the time |

use core::{fmt, num::NonZeroU64};
use linux_raw_sys::errno as raw;

/// A Linux error number (1..=4095), or one of the restart codes above. A whole word, so that a `Result` of a word and an error
/// travels in two registers: every system call returns one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(NonZeroU64);

/// What fallible functions above the memory core return.
pub type Result<T> = core::result::Result<T, Errno>;

macro_rules! numbers {
    ($($name:ident)*) => {
        #[allow(missing_docs, reason = "errno(3) documents them")]
        impl Errno {
            $(pub const $name: Errno = Errno::constant(raw::$name as u16);)*
            fn name(self) -> Option<&'static str> {
                match self { $(Errno::$name => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}
numbers! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE
    EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENODATA ETIME ENOSR EPROTO EBADMSG EOVERFLOW
    ENOTUNIQ EBADFD ELIBBAD EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT
    ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY
    EINPROGRESS ETOOMANYREFS ESTALE EREMOTEIO EDQUOT ENOMEDIUM ECANCELED ENOKEY EOWNERDEAD ENOTRECOVERABLE EHWPOISON
}

impl Errno {
    /// Interrupted by a signal; starts again if the handler has `SA_RESTART`.
    pub const RESTART: Errno = Errno::constant(512);
    /// Interrupted; starts again always.
    pub const RESTART_NOINTR: Errno = Errno::constant(513);
    /// Interrupted; starts again only if no handler ran.
    pub const RESTART_NOHAND: Errno = Errno::constant(514);
    /// Interrupted a relative sleep; goes on for the rest of its time if no handler ran.
    pub const RESTART_BLOCK: Errno = Errno::constant(516);

    const fn constant(code: u16) -> Errno {
        match NonZeroU64::new(code as u64) {
            Some(code) => Errno(code),
            None => panic!("0 is no error"),
        }
    }

    /// The restart code that this value of `rax` is, if it is one.
    pub fn restart(rax: u64) -> Option<Errno> {
        [Errno::RESTART, Errno::RESTART_NOINTR, Errno::RESTART_NOHAND, Errno::RESTART_BLOCK]
            .into_iter()
            .find(|code| code.to_rax() == rax)
    }

    /// The error with this number (as a server on the host names it); what is out of range becomes `EIO`.
    pub fn from_code(code: u32) -> Errno {
        match NonZeroU64::new(code as u64) {
            Some(code) if code.get() < 512 => Errno(code),
            _ => Errno::EIO,
        }
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0.get() as u16
    }

    /// The value of `rax` that tells a program of it.
    pub const fn to_rax(self) -> u64 {
        self.0.get().wrapping_neg()
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "E{}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<hafez_mm::MmError> for Errno {
    fn from(e: hafez_mm::MmError) -> Errno {
        use hafez_mm::MmError as M;
        match e {
            M::NoMemory | M::NotMapped | M::TooMany => Errno::ENOMEM,
            M::Invalid => Errno::EINVAL,
            M::Exists => Errno::EEXIST,
            M::Denied => Errno::EACCES,
            M::Sealed => Errno::EPERM,
            M::HasFile => Errno::EBADF,
            M::Unsupported => Errno::EOPNOTSUPP,
            M::Busy => Errno::EBUSY,
            M::Io => Errno::EIO,
        }
    }
}

impl From<hafez_mm::FaultError> for Errno {
    /// For kernel users of an object's page; a fault of user code becomes a signal instead.
    fn from(e: hafez_mm::FaultError) -> Errno {
        use hafez_mm::FaultError as F;
        match e {
            F::NotMapped | F::Denied => Errno::EFAULT,
            F::PastEnd | F::Io | F::Unanswered => Errno::EIO,
            F::Interrupted => Errno::EINTR,
            F::OutOfMemory => Errno::ENOMEM,
        }
    }
}

impl From<hafez_mm::PagerError> for Errno {
    fn from(_: hafez_mm::PagerError) -> Errno {
        Errno::EIO
    }
}

impl From<crate::arch::user::BadAddress> for Errno {
    fn from(_: crate::arch::user::BadAddress) -> Errno {
        Errno::EFAULT
    }
}

/// There is no room to grow a list.
impl From<alloc::collections::TryReserveError> for Errno {
    fn from(_: alloc::collections::TryReserveError) -> Errno {
        Errno::ENOMEM
    }
}
