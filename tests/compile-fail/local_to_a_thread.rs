// A local closure stays in its thread.
use trampfd::Closure;

fn main() {
    let f = Closure::local(|a: i32| a).unwrap();
    std::thread::spawn(move || drop(f));
}
