//! Cell types predicted from codes: by quadratic discriminant analysis, one Gaussian a type, with accuracies along a tree of types; and by
//! linear support vector machines, with F1.

mod f1;
mod folds;
pub mod hierarchy;
pub mod qda;
pub mod svm;

pub use f1::{F1, f1};
pub use folds::{Accuracy, stratified_folds};
pub use hierarchy::{Hierarchy, Level, Merging};
pub use qda::{Covariance, Qda, Scores, Settings, cross_validate, hold_out};
pub use svm::{LinearSvm, cross_validated};
