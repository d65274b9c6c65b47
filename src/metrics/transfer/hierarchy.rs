//! Accuracy against the number of classes, as a tree of cell types is merged from its leaves.
//!
//! Merge order: again and again the lowest internal node replaces its children. At every level the densities of the fitted leaves
//! are normalised over leaves and **summed over the leaves of a merged class**, and the largest sum wins
//! ([`Merging::SumLeaves`], Gala et al. 2019); or a Gaussian is fitted to each merged class anew ([`Merging::Refit`], 2021).

use super::folds::Accuracy;
use super::qda::{Cells, Qda, Settings, Tested, compare, greatest, splits};
use crate::metrics::matrix::Matrix;
use rayon::prelude::*;

/// How classes that the tree has merged are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merging {
    /// Leaf densities, normalised over leaves, are added up within a merged class.
    SumLeaves,
    /// A Gaussian a merged class.
    Refit,
}

/// One row of a tree: a node, its parent and its height above the leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The node's name; a leaf's is the name of a class.
    pub name: String,
    /// The parent's name; `None` for the root.
    pub parent: Option<String>,
    /// Where it stands; children stand no higher than their parent.
    pub height: f64,
}

/// A tree of cell types.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    nodes: Vec<Node>,
    parents: Vec<Option<usize>>,
}

/// Accuracy at one level of the tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Classes told apart, of those with enough cells.
    pub classes: usize,
    /// Of the codes.
    pub accuracy: Accuracy,
    /// Of always naming the most frequent class.
    pub most_frequent: Accuracy,
    /// Expected, of naming classes at random with their frequencies.
    pub random: Accuracy,
}

impl Hierarchy {
    /// Checks a tree: names are unique, parents exist, there is one root, and heights do not fall towards it (so there is no cycle).
    /// The message names the node that is wrong.
    pub fn new(nodes: Vec<Node>) -> Result<Hierarchy, String> {
        let mut names: Vec<(&str, usize)> = nodes.iter().enumerate().map(|(i, n)| (n.name.as_str(), i)).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(format!("node {:?} stands in the tree twice; names must be unique", twice[0].0));
        }
        let find = |name: &str| names.binary_search_by_key(&name, |n| n.0).ok().map(|at| names[at].1);
        let mut parents = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let Some(name) = &node.parent else {
                parents.push(None);
                continue;
            };
            let parent = find(name).ok_or_else(|| format!("node {:?} has the parent {name:?}, which is not in the tree", node.name))?;
            let (h, above) = (node.height, nodes[parent].height);
            if h.is_nan() || above.is_nan() || h > above {
                return Err(format!(
                    "node {:?} is at height {h}, above its parent {name:?} at {above}; heights must grow towards the root",
                    node.name
                ));
            }
            parents.push(Some(parent));
        }
        let roots = parents.iter().filter(|p| p.is_none()).count();
        if roots != 1 {
            return Err(format!("the tree has {roots} nodes without a parent; exactly one, the root, is wanted"));
        }
        let hierarchy = Hierarchy { nodes, parents };
        match (0..hierarchy.nodes.len()).find(|&i| hierarchy.depth(i).is_none()) {
            Some(i) => Err(format!("node {:?} is its own ancestor", hierarchy.nodes[i].name)),
            None => Ok(hierarchy),
        }
    }

    /// Steps to the root; `None` on a cycle (possible where heights are equal).
    fn depth(&self, node: usize) -> Option<usize> {
        let mut at = node;
        (0..=self.nodes.len()).find(|_| match self.parents[at] {
            Some(parent) => {
                at = parent;
                false
            }
            None => true,
        })
    }

    /// Names of the leaves, in the order of the rows.
    pub fn leaves(&self) -> Vec<&str> {
        let inner = self.inner();
        (0..self.nodes.len()).filter(|i| !inner[*i]).map(|i| self.nodes[i].name.as_str()).collect()
    }

    fn inner(&self) -> Vec<bool> {
        let mut inner = vec![false; self.nodes.len()];
        self.parents.iter().flatten().for_each(|&p| inner[p] = true);
        inner
    }

    /// For every level from the leaves to the root, the merged class of each of `classes` (names); a class that is no leaf of the
    /// tree is `None`. Levels that leave the present classes as they were are passed over.
    pub fn levels(&self, classes: &[String]) -> Vec<Vec<Option<u32>>> {
        let inner = self.inner();
        // Where each node's cells count at present; children stand before their parents in the order of merging.
        let mut stands: Vec<usize> = (0..self.nodes.len()).collect();
        let leaf = |name: &String| (0..self.nodes.len()).find(|&i| !inner[i] && self.nodes[i].name == *name);
        let leaves: Vec<Option<usize>> = classes.iter().map(leaf).collect();
        let mut order: Vec<usize> = (0..self.nodes.len()).filter(|&i| inner[i]).collect();
        // At equal heights the deeper node first, so that a node is never merged before its children.
        order.sort_by(|&a, &b| {
            self.nodes[a].height.total_cmp(&self.nodes[b].height).then(self.depth(b).cmp(&self.depth(a))).then(a.cmp(&b))
        });
        let number = |stands: &[usize]| leaves.iter().map(|l| l.map(|l| stands[l] as u32)).collect::<Vec<_>>();
        let mut levels = vec![number(&stands)];
        for node in order {
            let below: Vec<bool> = (0..self.nodes.len()).map(|i| self.parents[i] == Some(node)).collect();
            stands.iter_mut().filter(|at| below[**at]).for_each(|at| *at = node);
            levels.push(number(&stands));
        }
        let distinct = |level: &[Option<u32>]| {
            let mut seen: Vec<u32> = level.iter().flatten().copied().collect();
            seen.sort_unstable();
            seen.dedup();
            seen.len()
        };
        levels.dedup_by(|next, kept| distinct(next) == distinct(kept));
        levels
    }

    /// Cross-validated accuracy of `codes` at every level, finest first. `cells` are (row, label); a label is an index into `classes`.
    /// Cells of classes that are not leaves, or that have too few cells, are left out. Empty if nothing can be tested.
    #[allow(clippy::too_many_arguments)]
    pub fn accuracies(
        &self,
        codes: Matrix<'_>,
        cells: &[(u32, u32)],
        classes: &[String],
        folds: usize,
        seed: u64,
        settings: Settings,
        merging: Merging,
    ) -> Vec<Level> {
        let mut sizes = vec![0usize; classes.len()];
        for cell in cells {
            if let Some(size) = sizes.get_mut(cell.1 as usize) {
                *size += 1;
            }
        }
        let mut levels = self.levels(classes);
        // Only classes with enough cells count, here and in the number of classes.
        for level in &mut levels {
            level.iter_mut().zip(&sizes).filter(|(_, n)| **n < settings.least_cells.max(1)).for_each(|(merged, _)| *merged = None);
        }
        let used: Cells = cells.iter().copied().filter(|c| levels[0].get(c.1 as usize).is_some_and(|m| m.is_some())).collect();
        let splits = splits(&used, folds, seed);
        let tests: Vec<Vec<Option<Tested>>> = splits
            .par_iter()
            .map(|(train, test)| match merging {
                Merging::SumLeaves => sum_leaves(codes, train, test, &levels, settings),
                Merging::Refit => levels.iter().map(|level| refit(codes, train, test, level, settings)).collect(),
            })
            .collect();
        let mut out: Vec<Level> = Vec::new();
        for (at, level) in levels.iter().enumerate() {
            let tested: Vec<&Tested> = tests.iter().filter_map(|fold| fold[at].as_ref()).collect();
            let over = |f: fn(&Tested) -> f64| Accuracy::over(&tested.iter().map(|t| f(t)).collect::<Vec<_>>());
            let mut merged: Vec<u32> = level.iter().flatten().copied().collect();
            merged.sort_unstable();
            merged.dedup();
            if let (Some(accuracy), Some(most_frequent), Some(random)) = (over(|t| t.right), over(|t| t.most_frequent), over(|t| t.random))
            {
                let level = Level { classes: merged.len(), accuracy, most_frequent, random };
                // Small classes may have been all that told two levels apart: the higher level stands for both.
                out.pop_if(|last| last.classes == level.classes);
                out.push(level);
            }
        }
        out
    }
}

/// One fold: leaves fitted once, their normalised densities added up at every level.
fn sum_leaves(codes: Matrix<'_>, train: &Cells, test: &Cells, levels: &[Vec<Option<u32>>], settings: Settings) -> Vec<Option<Tested>> {
    let none = || levels.iter().map(|_| None).collect();
    let Some(qda) = Qda::fit(codes, train, settings) else { return none() };
    let test: Cells = test.iter().copied().filter(|c| qda.knows(c.1)).collect();
    if test.is_empty() {
        return none();
    }
    let leaves: Vec<u32> = qda.labels().collect();
    let posteriors: Vec<Vec<f64>> = test
        .iter()
        .map(|c| {
            let mut d = qda.log_densities(codes.row(c.0 as usize));
            let top = d[greatest(&d)];
            d.iter_mut().for_each(|v| *v = (*v - top).exp());
            let sum: f64 = d.iter().sum();
            d.iter_mut().for_each(|v| *v /= sum);
            d
        })
        .collect();
    let at_level = |level: &Vec<Option<u32>>| {
        let merged = |label: u32| level[label as usize].expect("only leaves with enough cells are fitted");
        let mut present: Vec<u32> = leaves.iter().map(|&l| merged(l)).collect();
        present.sort_unstable();
        present.dedup();
        let place = |label: u32| present.binary_search(&merged(label)).expect("every leaf's class is present");
        let mut sizes: Vec<(u32, usize)> = present.iter().map(|&m| (m, 0)).collect();
        qda.sizes().for_each(|(label, n)| sizes[place(label)].1 += n);
        let right = test.iter().zip(&posteriors).filter(|(c, posterior)| {
            let mut sums = vec![0.0; present.len()];
            leaves.iter().zip(*posterior).for_each(|(&l, p)| sums[place(l)] += p);
            greatest(&sums) == place(c.1)
        });
        let right = right.count();
        let truth: Vec<u32> = test.iter().map(|c| merged(c.1)).collect();
        Some(compare(&sizes, &truth, right))
    };
    levels.iter().map(at_level).collect()
}

/// One fold at one level: a Gaussian a merged class.
fn refit(codes: Matrix<'_>, train: &Cells, test: &Cells, level: &[Option<u32>], settings: Settings) -> Option<Tested> {
    let merge = |cells: &Cells| -> Cells { cells.iter().filter_map(|c| level[c.1 as usize].map(|m| (c.0, m))).collect() };
    let qda = Qda::fit(codes, &merge(train), settings)?;
    let test: Cells = merge(test).into_iter().filter(|c| qda.knows(c.1)).collect();
    let truth: Vec<u32> = test.iter().map(|c| c.1).collect();
    let right = test.iter().filter(|c| qda.predict(codes.row(c.0 as usize)) == c.1).count();
    (!test.is_empty()).then(|| compare(&qda.sizes().collect::<Vec<_>>(), &truth, right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rng::Sequence;
    use crate::metrics::transfer::cross_validate;

    fn node(name: &str, parent: Option<&str>, height: f64) -> Node {
        Node { name: name.into(), parent: parent.map(Into::into), height }
    }

    fn tree() -> Hierarchy {
        let rows = [
            node("root", None, 3.0),
            node("A", Some("root"), 1.0),
            node("B", Some("root"), 2.0),
            node("a1", Some("A"), 0.0),
            node("a2", Some("A"), 0.0),
            node("b1", Some("B"), 0.0),
            node("b2", Some("B"), 0.0),
        ];
        Hierarchy::new(rows.to_vec()).expect("a tree")
    }

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn the_lowest_inner_node_merges_first() {
        let tree = tree();
        assert_eq!(tree.leaves(), ["a1", "a2", "b1", "b2"]);
        let levels = tree.levels(&names(&["b1", "a1", "a2", "b2", "elsewhere"]));
        let same = |level: &[Option<u32>], i: usize, j: usize| level[i] == level[j];
        assert_eq!(levels.len(), 4);
        assert!(!same(&levels[0], 1, 2) && !same(&levels[0], 0, 3));
        assert!(same(&levels[1], 1, 2) && !same(&levels[1], 0, 3));
        assert!(same(&levels[2], 0, 3) && !same(&levels[2], 0, 1));
        assert!(same(&levels[3], 0, 1));
        assert!(levels.iter().all(|l| l[4].is_none() && l[0].is_some()));
        // With one leaf below A, merging A changes nothing.
        assert_eq!(tree.levels(&names(&["a1", "b1", "b2"])).len(), 3);
    }

    #[test]
    fn a_tree_that_is_none_is_refused_by_name() {
        let refused = |rows: &[Node]| Hierarchy::new(rows.to_vec()).expect_err("no tree");
        assert!(refused(&[node("r", None, 1.0), node("x", Some("y"), 0.0)]).contains("\"y\", which is not in the tree"));
        assert!(refused(&[node("r", None, 1.0), node("x", Some("r"), 2.0)]).contains("above its parent"));
        assert!(refused(&[node("r", None, 1.0), node("r", None, 2.0)]).contains("twice"));
        assert!(refused(&[node("r", None, 1.0), node("s", None, 2.0)]).contains("2 nodes without a parent"));
        assert!(refused(&[]).contains("0 nodes without a parent"));
        let cycle = [node("r", None, 1.0), node("x", Some("y"), 1.0), node("y", Some("x"), 1.0)];
        assert!(refused(&cycle).contains("its own ancestor"));
    }

    /// Leaves of a group overlap, groups do not; the last class has four cells.
    fn codes() -> (Vec<f32>, Vec<(u32, u32)>) {
        let mut draws = Sequence::new(4, 0, 0);
        let cells: Vec<(u32, u32)> = (0..164).map(|i| (i, if i < 160 { i % 4 } else { 4 })).collect();
        let centre = |label: u32| [(0.0, 0.0), (1.5, 0.0), (40.0, 0.0), (40.0, 1.5), (90.0, 0.0)][label as usize];
        let codes = cells.iter().flat_map(|c| {
            let (x, y) = centre(c.1);
            [x + draws.next_normal(), y + draws.next_normal()]
        });
        (codes.collect(), cells)
    }

    #[test]
    fn accuracy_grows_as_classes_merge_and_starts_at_the_leaves() {
        let (values, cells) = codes();
        let codes = Matrix::new(&values, 164, 2);
        let classes = names(&["a1", "a2", "b1", "b2", "rare"]);
        let run = |merging| tree().accuracies(codes, &cells, &classes, 10, 1, Settings::default(), merging);
        let summed = run(Merging::SumLeaves);
        assert_eq!(summed.iter().map(|l| l.classes).collect::<Vec<_>>(), [4, 3, 2, 1]);
        let leaves = cross_validate(codes, &cells[..160], 10, 1, Settings::default()).expect("four classes");
        assert_eq!(summed[0].accuracy, leaves.qda);
        assert!(summed.windows(2).all(|l| l[0].accuracy.mean <= l[1].accuracy.mean) && summed[0].accuracy.mean > 0.6);
        assert!(summed[2].accuracy.mean == 1.0 && (summed[2].random.mean - 0.5).abs() < 0.01);
        assert_eq!((summed[3].accuracy.mean, summed[3].most_frequent.mean, summed[3].random.mean), (1.0, 1.0, 1.0));
        let refitted = run(Merging::Refit);
        assert!(refitted[0].accuracy == summed[0].accuracy && refitted[2].accuracy.mean == 1.0);
        assert!(tree().accuracies(codes, &[], &classes, 10, 1, Settings::default(), Merging::SumLeaves).is_empty());
        assert!(tree().accuracies(codes, &cells, &names(&["x", "y"]), 10, 1, Settings::default(), Merging::Refit).is_empty());
    }
}
