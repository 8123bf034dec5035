//! Hands the kernel's ELF file, named by `HAFEZ_KERNEL`, to `include_bytes!`. Without it the command builds all the same, for
//! `cargo check` and tests of its parts, and says at run time that it carries no kernel.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(kernel_embedded)");
    println!("cargo::rerun-if-env-changed=HAFEZ_KERNEL");
    if let Ok(kernel) = std::env::var("HAFEZ_KERNEL") {
        println!("cargo::rerun-if-changed={kernel}");
        println!("cargo::rustc-env=HAFEZ_KERNEL_ELF={kernel}");
        println!("cargo::rustc-cfg=kernel_embedded");
    }
}
