//! Work that several threads share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How often the caller looks whether the others are done, before it sleeps until they are: some hundred microseconds.
const LOOKS: usize = 1 << 13;

/// Each share by a thread, the first by this one, for short ones of like length: nobody is woken who need not be. Who calls on
/// a thread of the pool takes back what nobody has begun; others must wait until a sleeping thread has woken and done it.
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
    let (run, begun, done) = (&run, &AtomicUsize::new(0), &AtomicUsize::new(0));
    let taken_back = rayon::current_thread_index().is_some();
    rayon::in_place_scope(|scope| {
        for share in shares {
            scope.spawn(move |_| {
                begun.fetch_add(1, Ordering::Relaxed);
                run(share);
                done.fetch_add(1, Ordering::Release);
            });
        }
        run(own);
        // To sleep and be woken takes longer than a share that began as early.
        for _ in 0..LOOKS {
            let ended = done.load(Ordering::Acquire);
            if ended == others || (taken_back && ended == begun.load(Ordering::Relaxed)) {
                break;
            }
            std::hint::spin_loop();
        }
    });
}
