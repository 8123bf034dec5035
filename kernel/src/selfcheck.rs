use crate::arch::{self, paging, user::*};
use hafez_mm::*;
pub fn space() -> Pfn {
    let f = || { let f = crate::mem::wired(0).unwrap(); paging::phys().zero(f); f };
    let root = f();
    let (a, b, c, page) = (f(), f(), f(), f());
    let w = |t: Pfn, i: usize, v: u64| unsafe { paging::phys().ptr(t).cast::<u64>().add(i).write(v) };
    for i in 256..512 { let v = unsafe { paging::phys().ptr(paging::kernel_root()).cast::<u64>().add(i).read() }; w(root, i, v); }
    w(root, 0, a.addr().0 | 7); w(a, 0, b.addr().0 | 7); w(b, 2, c.addr().0 | 7);
    w(c, 0, page.addr().0 | 5);
    let data = f();
    w(c, 1, data.addr().0 | 7 | 1 << 63);
    // loop: mov eax,39; syscall; jmp loop   @0
    let code: &[u8] = &[0xb8, 39, 0, 0, 0, 0x0f, 5, 0xeb, 0xf7];
    paging::phys().write(page, 0, code);
    paging::phys().write(page, 0x100, &[0xcc]); // int3
    paging::phys().write(page, 0x110, &[0x0f, 0x0b]); // ud2
    paging::phys().write(page, 0x120, &[0x8a, 0x04, 0x25, 0, 0, 0, 0]); // mov al,[0]
    paging::phys().write(page, 0x130, &[0xeb, 0xfe]); // jmp .
    paging::phys().write(page, 0x140, &[0xfa]); // cli
    paging::phys().write(page, 0x150, &[0xff, 0xe0]); // jmp rax
    paging::phys().write(page, 0x160, &[0x66, 0x0f, 0x6f, 0xc1, 0x0f, 5]); // movdqa xmm0,xmm1; syscall
    root
}
pub fn run() {
    threads();
    if crate::arch::boot::info().option("user").is_some() { user(); }
}
static Q: crate::sched::WaitQueue = crate::sched::WaitQueue::new();
static N: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
fn threads() {
    use crate::sched; use core::sync::atomic::Ordering::SeqCst; use alloc::{boxed::Box, sync::Arc, vec::Vec};
    let t0 = arch::time::now_ns();
    let r = Q.wait_until(|| false, Some(t0 + 3_000_000), true);
    crate::early_println!("slept {} ns {:?} idle {}", arch::time::now_ns() - t0, r, sched::idle_time());
    let d = Arc::new(5u32);
    for round in 0..3 {
        let t0 = arch::time::now_ns();
        for i in 0..50 { let d = d.clone(); sched::spawn("t", Box::new(move || {
            if i % 3 == 0 { sched::yield_now() }
            if i % 3 == 1 { Q.wait_until(|| false, Some(arch::time::now_ns() + 1000 * (100-i)), false); }
            N.fetch_add(*d as usize, SeqCst); Q.wake_all(); }), None).unwrap(); }
        let t1 = arch::time::now_ns();
        Q.wait(|| N.load(SeqCst) == 250 * (round + 1));
        crate::early_println!("spawned in {} done {} heap {:?} {:?} rc {}", t1 - t0, arch::time::now_ns() - t1, crate::mem::heap_usage(), sched::counts(), Arc::strong_count(&d));
    }
    sched::yield_now();
    crate::early_println!("{:?} rc {}", sched::counts(), Arc::strong_count(&d));
    // ping-pong by yield
    let done = Arc::new(core::sync::atomic::AtomicBool::new(false)); let d2 = done.clone();
    let t = sched::spawn("pp", Box::new(move || { while !d2.load(SeqCst) { sched::yield_now() } }), None).unwrap();
    sched::yield_now();
    let t0 = arch::time::now_ns();
    for _ in 0..1000 { sched::yield_now(); }
    crate::early_println!("yield A-B-A {} per 1000, {}", arch::time::now_ns() - t0, t.cpu_time());
    done.store(true, SeqCst);
    let q: Arc<(sched::WaitQueue, core::sync::atomic::AtomicUsize)> = Arc::new((sched::WaitQueue::new(), 0.into())); let q2 = q.clone();
    sched::spawn("pp", Box::new(move || { for i in 0..1000 { q2.0.wait(|| q2.1.load(SeqCst) == 2 * i + 1); q2.1.fetch_add(1, SeqCst); q2.0.wake_all(); } }), None).unwrap();
    sched::yield_now();
    let t0 = arch::time::now_ns();
    for i in 0..1000 { q.1.fetch_add(1, SeqCst); q.0.wake_all(); q.0.wait(|| q.1.load(SeqCst) == 2 * i + 2); }
    crate::early_println!("wait ping-pong {} per 1000", arch::time::now_ns() - t0);
    // interrupt
    let t = sched::spawn("i", Box::new(|| { let r = Q.wait_until(|| false, None, true); crate::early_println!("{:?}", r); sched::clear_interrupt();
        let r = sched::multi_wait(&[&Q, &Q], || false, Some(arch::time::now_ns() + 500_000), true); crate::early_println!("{:?}", r); N.store(0, SeqCst); Q.wake_all(); }), None).unwrap();
    sched::yield_now(); t.interrupt();
    Q.wait(|| N.load(SeqCst) == 0);
    sched::timer::at(arch::time::now_ns() + 10_000, Box::new(|| { N.store(7, SeqCst); sched::wake_key(99); })).unwrap();
    sched::wait_key(99, &|| N.load(SeqCst) == 7);
    let id = sched::timer::at(arch::time::now_ns() + 10_000, Box::new(|| panic!())).unwrap();
    crate::early_println!("{} {}", sched::timer::cancel(id), sched::timer::cancel(id));
    if arch::boot::info().option("overflow").is_some() { fn f(n: u64) -> u64 { let a = [n; 64]; core::hint::black_box(&a); f(n + 1) + a[3] } f(0); }
    let v: Vec<u8> = Vec::with_capacity(300); drop(v);
}
fn user() {
    let root = space();
    paging::load_space(root, SpaceId(1));
    let mut c = UserContext::new(0x400000, 0x401ff0).unwrap();
    for _ in 0..3 { assert!(super::arch::user::run(&mut c) == Trap::Syscall); c.rax = 5; }
    let t0 = arch::time::now_ns();
    for _ in 0..1000 { if super::arch::user::run(&mut c) != Trap::Syscall { panic!() } c.rax = 5; }
    crate::early_println!("null syscall loop: {} ns per 1000; {:x?}", arch::time::now_ns() - t0, c.rip());
    c.set_rip(0x400100); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    c.set_rip(0x400110); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    c.set_rip(0x400120); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    c.set_rip(0x400140); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    c.rax = 0x400100; c.rcx = 7; c.r11 = 9;
    c.set_rip(0x400150); crate::early_println!("{:x?} rip {:x} {:x?}", super::arch::user::run(&mut c), c.rip(), &*c);
    c.rax = 0xffff_8000_0010_0000; 
    c.set_rip(0x400150); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    c.rax = 0x8000_0000_0000; 
    c.set_rip(0x400150); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    c.set_rip(0x8000_0000_0000); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    c.set_fs_base(0x123456); 
    c.set_rip(0x400130); arch::time::set_deadline(Some(arch::time::now_ns() + 1_000_000));
    crate::early_println!("{:x?} rip {:x} {:x}", super::arch::user::run(&mut c), c.rip(), c.fs_base());
    let mut b = [0u8; 64];
    crate::early_println!("{:?}", copy_to(0x401000, b"hello world, a string of some length\0"));
    crate::early_println!("{:?} {:?}", copy_string(&mut b, 0x401001), core::str::from_utf8(&b));
    crate::early_println!("{:?} {:?}", copy_string(&mut b[..7], 0x401001), core::str::from_utf8(&b));
    crate::early_println!("{:?} {:?} {:?}", copy_to(0x400000, b"x"), copy_to(0x401fff, b"xy"), copy_from(&mut b, 0xffff_8000_0000_0000));
    crate::early_println!("{:?} {:?} {:?}", zero(0x401000, 37), cmpxchg_u32(0x401000, 0, 77), read_u64(0x401000));
    c.fpu().set_bytes(&[0xff; 832]);
    c.set_rip(0x400160); crate::early_println!("{:x?} rip {:x}", super::arch::user::run(&mut c), c.rip());
    crate::early_println!("{:x?}", &c.fpu().bytes()[..200]);
    unsafe { (0x400000 as *mut u8).write_volatile(1) };
}
