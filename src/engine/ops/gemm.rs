//! temporary
use super::activation::Activation;
use crate::engine::{Step, Var};
#[derive(Clone, Copy)]
pub enum Layout { NN, NT, TN }
#[derive(Clone, Copy)]
pub struct Epilogue { pub bias: Var, pub activation: Activation }
impl Step {
    pub fn gemm(&mut self, layout: Layout, c: Var, a: Var, b: Var, accumulate: bool, epilogue: Option<Epilogue>) {
        let [m, n] = self.dims(c);
        let k = match layout { Layout::TN => self.dims(a)[0], _ => self.dims(a)[1] };
        if !self.on_cpu() {
            let (mut x, y) = (if accumulate { self.download(c).unwrap() } else { vec![0.0; m * n] }, (self.download(a).unwrap(), self.download(b).unwrap()));
            let bias = epilogue.filter(|e| !e.bias.is_none()).map(|e| self.download(e.bias).unwrap());
            for i in 0..m { for j in 0..n { let mut s = x[i*n+j] + bias.as_ref().map_or(0.0, |b| b[j]); for l in 0..k { s += match layout { Layout::NN => y.0[i*k+l]*y.1[l*n+j], Layout::NT => y.0[i*k+l]*y.1[j*k+l], Layout::TN => y.0[l*m+i]*y.1[l*n+j] }; } x[i*n+j] = epilogue.map_or(s, |e| e.activation.f(s)); } }
            self.upload(c, &x).unwrap();
            return;
        }
        let bias = epilogue.map_or(Var::NONE, |e| e.bias);
        let bias = self.or_empty(bias);
        let ([c], [a, b, bias]) = self.views([c], [a, b, bias]);
        if !accumulate { for row in c.chunks_exact_mut(n) { if bias.is_empty() { row.fill(0.0) } else { row.copy_from_slice(bias) } } }
        let (a_rs, a_cs) = if matches!(layout, Layout::TN) { (1, m as isize) } else { (k as isize, 1) };
        let (b_rs, b_cs) = if matches!(layout, Layout::NT) { (1, k as isize) } else { (n as isize, 1) };
        unsafe { gemm::gemm(m, n, k, c.as_mut_ptr(), 1, n as isize, true, a.as_ptr(), a_cs, a_rs, b.as_ptr(), b_cs, b_rs, 1.0f32, 1.0f32, false, false, false, gemm::Parallelism::None); }
        if let Some(e) = epilogue { c.iter_mut().for_each(|v| *v = e.activation.f(*v)); }
    }
}
