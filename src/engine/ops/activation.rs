//! Activations, fused into whatever makes their argument. The derivative is read off the output.

/// y = f(u).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// u
    Identity,
    /// max(u, 0)
    Relu,
    /// u above 0, slope·u below
    LeakyRelu(f32),
    /// u above 0, eᵘ - 1 below
    Elu,
    /// 1/(1 + e⁻ᵘ)
    Sigmoid,
    /// tanh u
    Tanh,
}

impl Activation {
    pub const EXAMPLES: [Activation; 6] = [Activation::Identity, Activation::Relu, Activation::LeakyRelu(0.2), Activation::Elu, Activation::Sigmoid, Activation::Tanh];
    pub fn code(self) -> i32 { match self { Activation::Identity => 0, Activation::Relu => 1, Activation::LeakyRelu(_) => 2, Activation::Elu => 3, Activation::Sigmoid => 4, Activation::Tanh => 5 } }
    pub fn parameter(self) -> f32 { if let Activation::LeakyRelu(a) = self { a } else { 0.0 } }
    pub fn from_code(code: i32, parameter: f32) -> Activation { match code { 1 => Activation::Relu, 2 => Activation::LeakyRelu(parameter), 3 => Activation::Elu, 4 => Activation::Sigmoid, 5 => Activation::Tanh, _ => Activation::Identity } }
    pub fn f(self, u: f32) -> f32 { match self { Activation::Identity => u, Activation::Relu => u.max(0.0), Activation::LeakyRelu(a) => if u > 0.0 { u } else { a * u }, Activation::Elu => if u > 0.0 { u } else { u.exp_m1() }, Activation::Sigmoid => 1.0 / (1.0 + (-u).exp()), Activation::Tanh => u.tanh() } }
    pub fn exact(self, u: f64) -> f64 { match self { Activation::Identity => u, Activation::Relu => u.max(0.0), Activation::LeakyRelu(a) => if u > 0.0 { u } else { a as f64 * u }, Activation::Elu => if u > 0.0 { u } else { u.exp_m1() }, Activation::Sigmoid => 1.0 / (1.0 + (-u).exp()), Activation::Tanh => u.tanh() } }
    pub fn slope(self, y: f32) -> f32 { match self { Activation::Identity => 1.0, Activation::Relu => if y > 0.0 { 1.0 } else { 0.0 }, Activation::LeakyRelu(a) => if y > 0.0 { 1.0 } else { a }, Activation::Elu => if y > 0.0 { 1.0 } else { y + 1.0 }, Activation::Sigmoid => y * (1.0 - y), Activation::Tanh => 1.0 - y * y } }
    pub fn backward_into(self, du: &mut [f32], y: &[f32], dy: &[f32]) { for ((d, &y), &g) in du.iter_mut().zip(y).zip(dy) { *d = g * self.slope(y); } }
}
