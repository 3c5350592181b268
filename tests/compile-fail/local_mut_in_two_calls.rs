// Two uses of what only one may change.
use trampfd::{Closure, LocalMut};

fn main() {
    let mut sum = 0;
    let f: LocalMut<unsafe extern "C" fn(i32)> = Closure::local_mut(|a: i32| sum += a).unwrap();
    let _ = f.as_ptr();
    println!("{sum}");
    drop(f);
}
