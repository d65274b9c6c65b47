//! Gradient reversal (Ganin and Lempitsky 2015): what is behind it learns to confuse what is in front.
//!
//!   forward   y = x, which lies where x does
//!   backward  dx = -c dy, c a word of the clock
//!   shapes    any
//!   kernel    reverse_bwd                                                              (kernels/reverse.cu)

use crate::device::cpu;
use crate::device::launch::{Arg, Grid};
use crate::device::vector::vectorised;
use crate::engine::tape::{Node, Op};
use crate::engine::{Knob, Step, Var};

static REVERSE: Op = Op { name: "reverse_gradient", backward };

impl Step {
    /// x itself, whose gradient comes back multiplied by -c.
    pub fn reverse_gradient(&mut self, x: Var, c: Knob) -> Var {
        let y = self.reshaped(x, self.dims(x));
        let Arg::I32(word) = self.knob_index(c) else { unreachable!("a knob's index is an int") };
        self.record(&REVERSE, [x], y, [0.0; 4], [word as u32, 0, 0, 0]);
        y
    }
}

fn backward(s: &mut Step, node: &Node) {
    let (x, word) = (node.x[0], node.n[0]);
    let dy = s.grad(node.y).expect("the gradient has arrived");
    let (dx, add) = s.grad_slot(x);
    if s.on_cpu() {
        let c = s.word(word as usize);
        let ([dx], [dy]) = s.views([dx], [dy]);
        cpu::chunks(dx, |start, dx| {
            vectorised(
                #[inline(always)]
                || dx.iter_mut().zip(&dy[start..]).for_each(|(dx, &dy)| *dx = if add { *dx } else { 0.0 } - c * dy),
            );
        });
    } else {
        let n = s.size(x);
        let args = [s.ptr(dx), s.ptr(dy), s.clock_ptr(), n.into(), Arg::I32(word as i32), add.into()];
        s.launch("reverse_bwd", Grid::over(n), &args);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn values_pass_and_gradients_are_turned_round_and_added() {
        for (device, mut s) in steps() {
            let c = s.knob(0.25);
            s.begin(true, 1, 0).unwrap();
            let x = s.leaf([2, 2], &[1.0, 2.0, 3.0, 4.0]);
            let y = s.reverse_gradient(x, c);
            assert_eq!(s.download(y).unwrap(), [1.0, 2.0, 3.0, 4.0], "{device}");
            // Twice, so that the second is added to the first.
            let both = s.beside(y, x);
            let again = s.reverse_gradient(x, c);
            let all = s.beside(both, again);
            let dy = s.constant([2, 6], &[1.0, 2.0, 0.5, 0.5, 4.0, 8.0, -1.0, 0.0, 0.0, 0.0, 0.0, 4.0]);
            s.backward_from(all, dy);
            let g = s.grad(x).unwrap();
            assert_eq!(s.download(g).unwrap(), [-0.25 + 0.5 - 1.0, -0.5 + 0.5 - 2.0, 0.25, -1.0], "{device}");
        }
    }
}
