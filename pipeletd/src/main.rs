//! The binary: the allocator that suits the daemon; everything else is in the library.

/// Events are made by one thread, committed by a second and freed by a third, a hundred thousand
/// times a second: glibc's allocator took a quarter of the daemon's time for that, this one a
/// twelfth. Huge pages would keep whole ones for every page that is in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pipeletd::main()
}
