//! Work that several threads share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How often the caller looks whether the others are done, before it sleeps until they are: some hundred microseconds.
const LOOKS: usize = 1 << 13;

/// Each share by a thread, the first by this one, for short ones of like length: nobody is woken who need not be.
pub fn share_out<I>(shares: I, run: impl Fn(I::Item) + Send + Sync)
where
    I: IntoIterator<IntoIter: ExactSizeIterator, Item: Send>,
{
    let mut shares = shares.into_iter();
    let Some(own) = shares.next() else { return };
    let others = shares.len();
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
