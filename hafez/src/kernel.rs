//! The kernel's ELF file, carried inside this program so that there is one file to install and none to lose.

#[cfg(kernel_embedded)]
static ELF: Option<&[u8]> = Some(include_bytes!(env!("HAFEZ_KERNEL_ELF")));
#[cfg(not(kernel_embedded))]
static ELF: Option<&[u8]> = None;

/// The embedded kernel, or why there is none.
pub fn elf() -> anyhow::Result<&'static [u8]> {
    ELF.ok_or_else(|| {
        anyhow::anyhow!(
            "this hafez was built without its kernel; build it with `cargo xtask build` (or install)"
        )
    })
}
