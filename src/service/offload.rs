//! Moves work that grows with the size of a request to threads for blocking work, away from the threads that answer
//! requests.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

/// Largest request in bytes whose work is done on the calling thread. Such work takes at most about a millisecond.
pub const AT_ONCE_BYTES: usize = 64 << 10;

/// Permits for large requests: half as many as there are cores, so that the other half stays free for all other work.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new((std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)));

/// Does the work for a request of this many bytes: small requests on the calling thread, large ones on a thread for
/// blocking work, after waiting for a permit. Work that has started runs to its end, even if the future is dropped.
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

/// Does the work on a thread for blocking work. A panic of the work continues in the caller.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops the caller.
            Err(_) => std::future::pending().await,
        },
    }
}
