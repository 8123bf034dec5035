pub fn run() {
    let v: alloc::vec::Vec<u64> = (0..100000).collect();
    crate::early_println!("{} {:?}", v.iter().sum::<u64>(), crate::mem::heap_usage());
    crate::early_println!("{:x?}", crate::arch::user::read_u32(0x1000));
    panic!("hello");
}
