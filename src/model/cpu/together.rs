//! Work that several threads share.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// How often the caller looks whether the others are done, before it sleeps until they are: some hundred microseconds.
const LOOKS: usize = 1 << 13;

/// Each share by a thread of the pool, for long ones; a single share by this thread.
pub fn by_pool<T: Send>(shares: Vec<T>, run: impl Fn(T) + Send + Sync) {
    if shares.len() == 1 {
        shares.into_iter().for_each(run);
    } else {
        shares.into_par_iter().for_each(run);
    }
}

/// Each share by a thread, the first by this one, for short ones of like length: nobody is woken who need not be.
pub fn share_out<T: Send>(shares: Vec<T>, run: impl Fn(T) + Send + Sync) {
    let others = shares.len().saturating_sub(1);
    let mut shares = shares.into_iter();
    let Some(own) = shares.next() else { return };
    if others == 0 {
        run(own);
        return;
    }
    let (run, done) = (&run, &AtomicUsize::new(0));
    rayon::in_place_scope(|scope| {
        for share in shares {
            scope.spawn(move |_| {
                run(share);
                done.fetch_add(1, Ordering::Release);
            });
        }
        run(own);
        // To sleep and be woken takes longer than a share that began as early.
        for _ in 0..LOOKS {
            if done.load(Ordering::Acquire) == others {
                break;
            }
            std::hint::spin_loop();
        }
    });
}
