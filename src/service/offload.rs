//! Work that grows with what a client sends, away from the threads that answer everybody.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

/// For a request of up to so many bytes the work takes about a millisecond at most and is done at once.
pub const AT_ONCE_BYTES: usize = 64 << 10;

/// Half of the cores at most, so that large requests leave the other half to everything else.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new((std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)));

/// Does the work of a request of so many bytes: at once where they are few, otherwise on a thread for blocking work, after
/// waiting for a turn. Work that has begun goes on to its end, also where nobody waits for it any more.
pub async fn offload<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= AT_ONCE_BYTES {
        return work();
    }
    let turn = TURNS.acquire().await.expect("the semaphore is never closed");
    apart(move || {
        let _turn = turn;
        work()
    })
    .await
}

/// Does the work on a thread for blocking work. A panic goes on in the caller.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and with it the caller.
            Err(_) => std::future::pending().await,
        },
    }
}
