//! Random bytes, for programs and for the kernel's own secrets.
//!
//! One generator serves `getrandom`, `/dev/urandom`, `AT_RANDOM` and the layout of address spaces. It is ChaCha20 with
//! *fast key erasure* (D. J. Bernstein, 2017):
//!
//! ```text
//!   key ──ChaCha20──> 256 bytes = [ next key | 224 bytes to hand out, each wiped as it goes ]
//! ```
//!
//! Whoever reads the kernel's memory later finds neither the bytes that were handed out nor the key that made them.
//! [`mix`] folds entropy in (virtio-rng at start-up, `rdrand`, time stamps); it never makes the state weaker, so any
//! source may be mixed in. Until the first [`mix`] the output is predictable: start-up mixes before the first space is made.
//!
//! The lock is held for the making of 256 bytes at most; large requests get a generator of their own, keyed from the
//! pool, and run without it.
#![forbid(unsafe_code)]

use hafez_mm::lock::Mutex;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const KEY: usize = 32;
/// Four ChaCha blocks: what the cipher makes in one go.
const BATCH: usize = 256;

struct Pool {
    key: [u8; KEY],
    ready: [u8; BATCH - KEY],
    /// Bytes of `ready` not handed out yet; they are the last ones.
    left: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { key: [0; KEY], ready: [0; BATCH - KEY], left: 0 });

impl Pool {
    fn refill(&mut self) {
        let mut cipher = ChaCha20Rng::from_seed(self.key);
        cipher.fill_bytes(&mut self.key);
        cipher.fill_bytes(&mut self.ready);
        self.left = self.ready.len();
    }

    fn take(&mut self, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            if self.left == 0 {
                self.refill();
            }
            let n = self.left.min(out.len() - done);
            let from = self.ready.len() - self.left;
            out[done..done + n].copy_from_slice(&self.ready[from..from + n]);
            self.ready[from..from + n].fill(0);
            self.left -= n;
            done += n;
        }
    }
}

/// Fill `out` with random bytes.
pub fn fill(out: &mut [u8]) {
    if out.len() <= BATCH {
        return POOL.lock().take(out);
    }
    let mut key = [0; KEY];
    POOL.lock().take(&mut key);
    ChaCha20Rng::from_seed(key).fill_bytes(out);
}

/// A random word.
pub fn u64() -> u64 {
    let mut word = [0; 8];
    fill(&mut word);
    u64::from_le_bytes(word)
}

/// Fold `entropy` into the state, of whatever length and quality.
pub fn mix(entropy: &[u8]) {
    let mut pool = POOL.lock();
    for chunk in entropy.chunks(KEY) {
        // key' = ChaCha(key xor chunk): a chunk that an enemy chose still leaves the old key's secret in it.
        for (k, e) in pool.key.iter_mut().zip(chunk) {
            *k ^= e;
        }
        pool.refill();
    }
}
