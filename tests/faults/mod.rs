//! What clients, disks, clocks, models and operators do to a server, over real sockets and mostly to real processes: it goes on, or
//! ends as it said it would.

mod clock;
mod corrupted;
mod disk;
mod engine_stop;
mod half_open;
mod kills;
mod overload;
mod slow;
mod stop;
