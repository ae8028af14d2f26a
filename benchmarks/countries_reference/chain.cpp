// Draws from the posterior of the countries system, with its own code of the density, as a reference for pelton.
//
// What it samples. Per country: a base, a noise, and per channel a coefficient, a saturation and a carryover; sales
// are normal about base + sum of coef * (1 - exp(-sat * carryover of spend, 21 weeks)). Above them: the rates of the
// exponential priors of coefficients, saturations and bases, and the two shapes of the carryovers' beta prior.
//
// How. Metropolis within Gibbs, optionally with replica exchange on the likelihood of chosen countries. The three
// rates are conjugate; a country's block moves by differential evolution from an archive of its own past states, by
// random walks, by walks along its ridges and, where JUMPS is given, by independence proposals from t mixtures.
//
// Compile: g++ -O3 -march=native -o chain chain.cpp
//
// Usage:   chain DATA COUNTRIES TEMPERED POWERS SMALLEST SWEEPS BURN THIN SEED OUT [JUMPS]
//   DATA       csv without header: country (0, 1, 2), spend of three channels, sales; a country's weeks in order
//   COUNTRIES  which countries to model, as digits: 012
//   TEMPERED   those whose likelihood is raised to the powers, as digits: 2
//   POWERS     how many powers, from 1 down to SMALLEST; 1 for no replica exchange
//   SMALLEST   the smallest power
//   SWEEPS     sweeps in all, at least 20; the first BURN are not kept, then every THIN-th is
//   OUT        float64, one row a kept sweep: logs of the five hyperparameters, then per country its 11 unconstrained
//              parameters (see Block) and its log likelihood
//   JUMPS      the three countries' mixtures, from fit_jumps.py

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

using std::string;
using std::vector;
typedef vector<double> Vector;

const int CHANNELS = 3;
const int LAGS = 21;
const int MOST_WEEKS = 256;
const int COUNTRIES = 3;

// A country's block: log base, log noise, then per channel log coef, log sat, logit carryover.
const int BLOCK = 2 + 3 * CHANNELS;
int coef_at(int channel) { return 2 + 3 * channel; }
int sat_at(int channel) { return 3 + 3 * channel; }
int car_at(int channel) { return 4 + 3 * channel; }

// The hyperparameters, in the order of a row of OUT.
enum Hyper { COEF_RATE, SAT_RATE, BASE_RATE, CAR_ALPHA, CAR_BETA, HYPERS };

const int MOVES_A_SWEEP = 8;
// The archive of past states that differential evolution takes its steps from.
const int ARCHIVE_EVERY = 20;
const size_t ARCHIVE_MOST = 20000;
const size_t ARCHIVE_ENOUGH = 100;
// Burn-in sweeps between two changes of the powers.
const int LADDER_EVERY = 2000;

std::mt19937_64 rng;

double uniform() { return std::uniform_real_distribution<double>(0, 1)(rng); }

double normal() {
  static std::normal_distribution<double> standard;
  return standard(rng);
}

double gamma_draw(double shape, double scale) { return std::gamma_distribution<double>(shape, scale)(rng); }

void stop(const string &why) {
  fprintf(stderr, "%s\n", why.c_str());
  exit(1);
}

// Proposals of one kind: how many were accepted, of how many.
struct Count {
  double accepted = 0;
  double tried = 0;
  double rate() const { return accepted / std::max(1.0, tried); }
};

struct Country {
  int weeks;
  Vector spend[CHANNELS];
  Vector sales;
};

// log(1 + exp(x)), whatever the size of x
static double log1p_exp(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

static double log_likelihood(const Country &country, const double *p) {
  int weeks = country.weeks;
  static double residual[MOST_WEEKS];
  static double exponent[MOST_WEEKS];
  double base = exp(p[0]);
  double log_noise = p[1];
  for (int t = 0; t < weeks; t++) residual[t] = base - country.sales[t];
  for (int k = 0; k < CHANNELS; k++) {
    double coef = exp(p[coef_at(k)]);
    double sat = exp(p[sat_at(k)]);
    double car = 1 / (1 + exp(-p[car_at(k)]));
    double dropped = pow(car, LAGS);
    const double *spend = country.spend[k].data();
    // The convolution with 21 powers of car as a recursion: a week enters, the week 21 before it leaves.
    double carried = 0;
    for (int t = 0; t < weeks; t++) {
      carried = spend[t] + car * carried;
      if (t >= LAGS) carried -= dropped * spend[t - LAGS];
      // Rounding can leave a little below nothing where all was subtracted again.
      if (carried < 0) carried = 0;
      exponent[t] = -sat * carried;
    }
    // A loop of its own, so that the compiler can vectorise it.
    for (int t = 0; t < weeks; t++) residual[t] += coef * (1 - exp(exponent[t]));
  }
  double squares = 0;
  for (int t = 0; t < weeks; t++) squares += residual[t] * residual[t];
  return -weeks * log_noise - 0.5 * squares * exp(-2 * log_noise) - 0.5 * weeks * log(2 * M_PI);
}

// The log of the beta function at the carryovers' two shapes.
static double log_beta(const double *h) {
  return lgamma(h[CAR_ALPHA]) + lgamma(h[CAR_BETA]) - lgamma(h[CAR_ALPHA] + h[CAR_BETA]);
}

// The log prior of a block on its unconstrained scale, Jacobian included; log_beta_h is log_beta(h), which a sweep
// computes once.
static double log_prior(const double *p, const double *h, double log_beta_h) {
  double sum = 0;
  double base = exp(p[0]);
  sum += log(h[BASE_RATE]) - h[BASE_RATE] * base + p[0];
  double noise = exp(p[1]);
  sum += log(0.001) - 0.001 * noise + p[1];
  for (int k = 0; k < CHANNELS; k++) {
    double log_coef = p[coef_at(k)];
    double log_sat = p[sat_at(k)];
    double logit = p[car_at(k)];
    sum += log(h[COEF_RATE]) - h[COEF_RATE] * exp(log_coef) + log_coef;
    sum += log(h[SAT_RATE]) - h[SAT_RATE] * exp(log_sat) + log_sat;
    sum += -h[CAR_ALPHA] * log1p_exp(-logit) - h[CAR_BETA] * log1p_exp(logit) - log_beta_h;
  }
  return sum;
}

// A mixture of t distributions with 8 degrees of freedom, over a block whose carryovers are on log(-log car).
struct Mixture {
  static const int FREEDOM = 8;
  static const int MOST_PARTS = 64;

  int parts;
  Vector log_weight;
  vector<Vector> mean;
  vector<Vector> factor;   // lower Cholesky factor of the scale, row by row
  vector<Vector> inverse;  // its inverse
  Vector log_determinant;

  static double number(FILE *file) {
    double value;
    if (fscanf(file, "%lf", &value) != 1) stop("JUMPS: a number is missing or is none");
    return value;
  }

  void read(FILE *file) {
    if (fscanf(file, "%d", &parts) != 1) stop("JUMPS: the number of parts is missing");
    if (parts < 1 || parts > MOST_PARTS) stop("JUMPS: a country's mixture must have 1 to 64 parts");
    for (int k = 0; k < parts; k++) {
      log_weight.push_back(log(number(file)));
      Vector m(BLOCK);
      Vector l(BLOCK * BLOCK);
      for (double &v : m) v = number(file);
      for (double &v : l) v = number(file);
      Vector li(BLOCK * BLOCK, 0);
      double logs = 0;
      for (int j = 0; j < BLOCK; j++) {
        logs += log(l[j * BLOCK + j]);
        li[j * BLOCK + j] = 1 / l[j * BLOCK + j];
        for (int i = j + 1; i < BLOCK; i++) {
          double s = 0;
          for (int q = j; q < i; q++) s -= l[i * BLOCK + q] * li[q * BLOCK + j];
          li[i * BLOCK + j] = s / l[i * BLOCK + i];
        }
      }
      mean.push_back(m);
      factor.push_back(l);
      inverse.push_back(li);
      log_determinant.push_back(logs);
    }
  }

  // Up to a constant that all parts share, which leaves the acceptance as it is.
  double log_density(const Vector &z) const {
    double most = -1e300;
    static Vector term(MOST_PARTS);
    for (int k = 0; k < parts; k++) {
      double distance = 0;
      for (int i = 0; i < BLOCK; i++) {
        double s = 0;
        for (int j = 0; j <= i; j++) s += inverse[k][i * BLOCK + j] * (z[j] - mean[k][j]);
        distance += s * s;
      }
      term[k] = log_weight[k] - log_determinant[k] - 0.5 * (FREEDOM + BLOCK) * log1p(distance / FREEDOM);
      most = std::max(most, term[k]);
    }
    double sum = 0;
    for (int k = 0; k < parts; k++) sum += exp(term[k] - most);
    return most + log(sum);
  }

  Vector draw() const {
    double u = uniform();
    int k = 0;
    double below = exp(log_weight[0]);
    while (below < u && k < parts - 1) below += exp(log_weight[++k]);
    double chi_square = 0;
    for (int i = 0; i < FREEDOM; i++) {
      double n = normal();
      chi_square += n * n;
    }
    double stretch = sqrt(FREEDOM / chi_square);
    Vector e(BLOCK);
    Vector z(BLOCK);
    for (double &v : e) v = normal() * stretch;
    for (int i = 0; i < BLOCK; i++) {
      z[i] = mean[k][i];
      for (int j = 0; j <= i; j++) z[i] += factor[k][i * BLOCK + j] * e[j];
    }
    return z;
  }
};

// A block with its carryovers on log(-log car), where a carryover near 1 has a tail that a t can cover; log_jacobian
// is that of the map back, the sum of log |d logit / d log(-log car)|.
static Vector to_mixture_scale(const Vector &p, double &log_jacobian) {
  Vector z = p;
  log_jacobian = 0;
  for (int k = 0; k < CHANNELS; k++) {
    double logit = p[car_at(k)];
    double minus_log = log1p_exp(-logit);
    double w = log(minus_log);
    z[car_at(k)] = w;
    log_jacobian += w - log(-expm1(-minus_log));
  }
  return z;
}

static Vector from_mixture_scale(const Vector &z) {
  Vector p = z;
  for (int k = 0; k < CHANNELS; k++) {
    double minus_log = exp(z[car_at(k)]);
    p[car_at(k)] = -minus_log - log(-expm1(-minus_log));
  }
  return p;
}

// One replica: the hyperparameters, and per country its block and its log likelihood.
struct State {
  double h[HYPERS];
  vector<Vector> p;
  Vector loglik;
};

// A country's block as one sweep moves it: what it is judged by.
struct Target {
  const Country &country;
  State &state;
  int g;
  double power;
  double log_beta_h;
  double prior;

  // Takes the proposal or leaves the block; log_correction is what an asymmetric proposal adds.
  bool consider(const Vector &q, double log_correction) {
    double l = log_likelihood(country, q.data());
    double proposed = log_prior(q.data(), state.h, log_beta_h);
    bool taken = log(uniform()) < power * (l - state.loglik[g]) + proposed - prior + log_correction;
    if (taken) {
      state.p[g] = q;
      state.loglik[g] = l;
      prior = proposed;
    }
    return taken;
  }
};

enum Move { EVOLUTION, LEAP, WALK, RIDGE, MOVES };

static void count(Count &counts, bool taken) {
  counts.tried++;
  if (taken) counts.accepted++;
}

static void move_rates(State &state) {
  int countries = state.p.size();
  double coefs = 0;
  double sats = 0;
  double bases = 0;
  for (int g = 0; g < countries; g++) {
    bases += exp(state.p[g][0]);
    for (int k = 0; k < CHANNELS; k++) {
      coefs += exp(state.p[g][coef_at(k)]);
      sats += exp(state.p[g][sat_at(k)]);
    }
  }
  // Exponential(10) priors under exponential likelihoods: gamma, exactly.
  state.h[COEF_RATE] = gamma_draw(1 + CHANNELS * countries, 1 / (10 + coefs));
  state.h[SAT_RATE] = gamma_draw(1 + CHANNELS * countries, 1 / (10 + sats));
  state.h[BASE_RATE] = gamma_draw(1 + countries, 1 / (10 + bases));
}

// Twelve random walks of the beta shapes on the log scale, of many sizes: both by the same factor, alone or apart.
static void move_shapes(State &state) {
  int countries = state.p.size();
  double log_cars = 0;
  double log_rests = 0;
  for (int g = 0; g < countries; g++) {
    for (int k = 0; k < CHANNELS; k++) {
      double logit = state.p[g][car_at(k)];
      log_cars -= log1p_exp(-logit);
      log_rests -= log1p_exp(logit);
    }
  }
  auto log_density = [&](double a, double b) {
    double h[HYPERS] = {0, 0, 0, a, b};
    double likelihood = a * log_cars + b * log_rests - CHANNELS * countries * log_beta(h);
    return likelihood - 0.01 * (a + b) + log(a) + log(b);
  };
  double current = log_density(state.h[CAR_ALPHA], state.h[CAR_BETA]);
  for (int r = 0; r < 12; r++) {
    double size = pow(10, -1.5 + 2 * uniform());
    double step_a = size * normal();
    double step_b = size * normal();
    if (r % 3 == 0) step_b = step_a;
    if (r % 3 == 1) step_b = 0;
    if (r % 6 == 5) step_a = 0;
    double a = state.h[CAR_ALPHA] * exp(step_a);
    double b = state.h[CAR_BETA] * exp(step_b);
    double proposed = log_density(a, b);
    if (log(uniform()) < proposed - current) {
      current = proposed;
      state.h[CAR_ALPHA] = a;
      state.h[CAR_BETA] = b;
    }
  }
}

// Differential evolution: along the difference of two archived states, of all parameters or of some. A leap takes
// the whole difference, which carries from mode to mode; else the size is spread about the best for a normal.
static void evolve(Target &target, const vector<Vector> &archive, bool all, bool leap, Count &counts) {
  Vector q = target.state.p[target.g];
  int one = archive.size() * uniform();
  int other = archive.size() * uniform();
  double share = uniform();
  int used = 0;
  bool use[BLOCK];
  for (int j = 0; j < BLOCK; j++) {
    use[j] = uniform() < (all ? 1.0 : share);
    used += use[j];
  }
  if (!used) {
    use[int(BLOCK * uniform())] = true;
    used = 1;
  }
  double size = leap ? 1.0 : 2.38 / sqrt(2.0 * used) * exp(0.5 * normal() - 0.3);
  for (int j = 0; j < BLOCK; j++) {
    if (use[j]) q[j] += size * (archive[one][j] - archive[other][j]) + 1e-4 * normal();
  }
  count(counts, target.consider(q, 0));
}

// One parameter, by a step of a size between 10^-2.5 and 10^0.5.
static void walk(Target &target, Count &counts) {
  Vector q = target.state.p[target.g];
  int j = BLOCK * uniform();
  double size = pow(10, -2.5 + 3 * uniform());
  q[j] += size * normal();
  count(counts, target.consider(q, 0));
}

// Along a channel's ridges: a third of the time coef * sat stays as it is, which is all that a channel far from
// saturation shows; else sat * car^n does, for n of 1 to 5, which is its effect n weeks after the spend.
static void slide(Target &target, Count &counts) {
  Vector q = target.state.p[target.g];
  int k = CHANNELS * uniform();
  double size = pow(10, -2 + 2.5 * uniform());
  double step = size * normal();
  int which = 3 * uniform();
  if (which == 0) {
    q[coef_at(k)] += step;
    q[sat_at(k)] -= step;
    count(counts, target.consider(q, 0));
    return;
  }
  double log_car = -log1p_exp(-q[car_at(k)]);
  double n = 1 + int(5 * uniform());
  double moved = log_car + step;
  // A carryover above 1 has no density: the block stays.
  if (moved >= -1e-9) return;
  double car = exp(moved);
  q[car_at(k)] = log(car / (1 - car));
  q[sat_at(k)] -= n * step;
  // The step is symmetric in log car, and d logit = d log car / (1 - car).
  double jacobian = -log1p(-car) + log1p(-exp(log_car));
  count(counts, target.consider(q, jacobian));
}

// Independence proposals from the country's mixture.
static void jump(Target &target, const Mixture &mixture, int times, Count &counts) {
  double log_jacobian;
  Vector current = to_mixture_scale(target.state.p[target.g], log_jacobian);
  double density = mixture.log_density(current) - log_jacobian;
  for (int m = 0; m < times; m++) {
    Vector drawn = mixture.draw();
    // Beyond these a carryover is 0 or 1 in float64. The prior leaves nothing there.
    bool outside = false;
    for (int k = 0; k < CHANNELS; k++) {
      if (!(drawn[car_at(k)] < 6.3 && drawn[car_at(k)] > -30)) outside = true;
    }
    if (outside) {
      count(counts, false);
      continue;
    }
    Vector q = from_mixture_scale(drawn);
    double back_jacobian;
    Vector back = to_mixture_scale(q, back_jacobian);
    double proposed = mixture.log_density(back) - back_jacobian;
    bool taken = target.consider(q, density - proposed);
    if (taken) density = proposed;
    count(counts, taken);
  }
}

// A start: per country the best of 3000 blocks drawn wide.
static State start(const vector<Country> &countries) {
  State state;
  state.h[COEF_RATE] = 1e-3;
  state.h[SAT_RATE] = 1;
  state.h[BASE_RATE] = 1e-3;
  state.h[CAR_ALPHA] = 1;
  state.h[CAR_BETA] = 2;
  state.p.resize(countries.size());
  state.loglik.resize(countries.size());
  for (size_t g = 0; g < countries.size(); g++) {
    double best = -1e300;
    for (int trial = 0; trial < 3000; trial++) {
      Vector p(BLOCK);
      p[0] = 7 + normal();
      p[1] = 7 + 0.7 * normal();
      for (int k = 0; k < CHANNELS; k++) {
        p[coef_at(k)] = 8 + normal();
        p[sat_at(k)] = uniform() < 0.7 ? -8 + 1.0 * normal() : -8 + 8 * uniform();
        p[car_at(k)] = -0.5 + 1.5 * normal();
      }
      double l = log_likelihood(countries[g], p.data());
      if (l > best) {
        best = l;
        state.p[g] = p;
        state.loglik[g] = l;
      }
    }
  }
  return state;
}

// Powers moved half way, in the log, to where every neighbouring pair would refuse as many swaps; the counts of swaps
// start again.
static void even_out(Vector &power, vector<Count> &swaps) {
  int powers = power.size();
  Vector refused(powers - 1);
  double total = 0;
  for (int i = 0; i + 1 < powers; i++) {
    double rate = swaps[i].tried ? swaps[i].accepted / swaps[i].tried : 0.5;
    refused[i] = 1 - std::min(std::max(rate, 0.02), 0.98);
    total += refused[i];
    swaps[i] = Count();
  }
  Vector below(powers, 0);
  for (int i = 0; i + 1 < powers; i++) below[i + 1] = below[i] + refused[i] / total;
  Vector even = power;
  for (int j = 1; j + 1 < powers; j++) {
    double wanted = double(j) / (powers - 1);
    int i = 0;
    while (below[i + 1] < wanted) i++;
    double along = (wanted - below[i]) / (below[i + 1] - below[i]);
    even[j] = exp(log(power[i]) * (1 - along) + log(power[i + 1]) * along);
  }
  for (int j = 1; j + 1 < powers; j++) power[j] = exp(0.5 * log(power[j]) + 0.5 * log(even[j]));
}

static vector<Country> read_data(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) stop(string("cannot read DATA ") + path);
  vector<Country> countries(COUNTRIES);
  int g;
  double spend[CHANNELS];
  double sales;
  while (fscanf(file, "%d,%lf,%lf,%lf,%lf", &g, &spend[0], &spend[1], &spend[2], &sales) == 5) {
    if (g < 0 || g >= COUNTRIES) stop("DATA: a country must be 0, 1 or 2");
    for (int k = 0; k < CHANNELS; k++) countries[g].spend[k].push_back(spend[k]);
    countries[g].sales.push_back(sales);
    countries[g].weeks = countries[g].sales.size();
    if (countries[g].weeks > MOST_WEEKS) stop("DATA: a country may have 256 weeks at most");
  }
  fclose(file);
  return countries;
}

int main(int argc, char **argv) {
  if (argc < 11) stop("usage: chain DATA COUNTRIES TEMPERED POWERS SMALLEST SWEEPS BURN THIN SEED OUT [JUMPS]");
  vector<Country> all = read_data(argv[1]);
  string digits = argv[2];
  string tempered_digits = argv[3];
  int powers = atoi(argv[4]);
  double smallest = atof(argv[5]);
  long sweeps = atol(argv[6]);
  long burn = atol(argv[7]);
  long thin = atol(argv[8]);
  rng.seed(atol(argv[9]));
  if (powers < 1) stop("POWERS must be at least 1");
  if (sweeps < 20) stop("SWEEPS must be at least 20");
  if (thin < 1) stop("THIN must be at least 1");
  FILE *out = fopen(argv[10], "wb");
  if (!out) stop(string("cannot write OUT ") + argv[10]);
  vector<Mixture> mixtures(COUNTRIES);
  bool jumps = argc > 11;
  if (jumps) {
    FILE *file = fopen(argv[11], "r");
    if (!file) stop(string("cannot read JUMPS ") + argv[11]);
    for (Mixture &mixture : mixtures) mixture.read(file);
    fclose(file);
  }

  vector<Country> countries;
  vector<bool> tempered;
  for (char digit : digits) {
    if (digit < '0' || digit >= '0' + COUNTRIES) stop("COUNTRIES: digits 0, 1 and 2 only");
    countries.push_back(all[digit - '0']);
    tempered.push_back(tempered_digits.find(digit) != string::npos);
  }
  int groups = countries.size();

  Vector power(powers);
  for (int i = 0; i < powers; i++) power[i] = powers > 1 ? exp(log(smallest) * i / (powers - 1)) : 1;
  vector<State> states;
  for (int i = 0; i < powers; i++) states.push_back(start(countries));
  vector<vector<vector<Vector>>> archives(powers, vector<vector<Vector>>(groups));

  vector<Count> swaps(powers);
  vector<vector<Count>> counts(powers, vector<Count>(MOVES));
  vector<Count> jump_counts(COUNTRIES);
  // A round trip is a state's way from the smallest power to power 1.
  long trips = 0;
  vector<int> was_smallest(powers, 0);

  for (long sweep = 0; sweep < sweeps; sweep++) {
    for (int i = 0; i < powers; i++) {
      State &state = states[i];
      move_rates(state);
      move_shapes(state);
      double log_beta_h = log_beta(state.h);
      for (int g = 0; g < groups; g++) {
        double at_power = tempered[g] ? power[i] : 1;
        double prior = log_prior(state.p[g].data(), state.h, log_beta_h);
        Target target = {countries[g], state, g, at_power, log_beta_h, prior};
        vector<Vector> &archive = archives[i][g];
        for (int m = 0; m < MOVES_A_SWEEP; m++) {
          bool leap = m == 4;
          if (archive.size() > ARCHIVE_ENOUGH && m < 5) {
            evolve(target, archive, m < 3, leap, counts[i][leap ? LEAP : EVOLUTION]);
          } else if (m < 7) {
            walk(target, counts[i][WALK]);
          } else {
            slide(target, counts[i][RIDGE]);
          }
        }
        if (jumps && i == 0) {
          int country = digits[g] - '0';
          // Switzerland has the modes that are far apart.
          jump(target, mixtures[country], country == 2 ? 8 : 2, jump_counts[country]);
        }
        // The archive grows to its full size even after burn-in, ever more slowly; only burn-in replaces its states.
        if (sweep % ARCHIVE_EVERY == 0) {
          if (archive.size() < ARCHIVE_MOST) {
            archive.push_back(state.p[g]);
          } else if (sweep < burn) {
            archive[int(uniform() * archive.size())] = state.p[g];
          }
        }
      }
    }

    // Even and odd pairs in turn: faster round trips than random pairs.
    for (int i = (sweep & 1); i + 1 < powers; i += 2) {
      double here = 0;
      double next = 0;
      for (int g = 0; g < groups; g++) {
        if (!tempered[g]) continue;
        here += states[i].loglik[g];
        next += states[i + 1].loglik[g];
      }
      bool taken = log(uniform()) < (power[i] - power[i + 1]) * (next - here);
      if (taken) {
        std::swap(states[i], states[i + 1]);
        std::swap(was_smallest[i], was_smallest[i + 1]);
      }
      count(swaps[i], taken);
    }
    was_smallest[powers - 1] = 1;
    if (was_smallest[0] == 1) {
      trips += sweep >= burn;
      was_smallest[0] = 0;
    }

    if (sweep < burn / 2 && powers > 2 && sweep % LADDER_EVERY == LADDER_EVERY - 1) even_out(power, swaps);
    if (sweep >= burn && sweep % thin == 0) {
      Vector row;
      for (int j = 0; j < HYPERS; j++) row.push_back(log(states[0].h[j]));
      for (int g = 0; g < groups; g++) {
        row.insert(row.end(), states[0].p[g].begin(), states[0].p[g].end());
        row.push_back(states[0].loglik[g]);
      }
      if (fwrite(row.data(), sizeof(double), row.size(), out) != row.size()) stop("cannot write OUT");
    }
    // The counts reported are those after burn-in.
    if (sweep == burn) {
      for (vector<Count> &kinds : counts) kinds.assign(MOVES, Count());
      swaps.assign(powers, Count());
    }
    if (sweep % (sweeps / 20) == 0) {
      fprintf(stderr, "%ld log likelihoods", sweep);
      for (int g = 0; g < groups; g++) fprintf(stderr, " %.1f", states[0].loglik[g]);
      fprintf(stderr, " trips %ld\n", trips);
    }
  }
  if (fclose(out) != 0) stop("cannot write OUT");

  for (int g = 0; g < COUNTRIES; g++) fprintf(stderr, "country %d jumps accepted %.4f\n", g, jump_counts[g].rate());
  fprintf(stderr, "round trips %ld\n", trips);
  for (int i = 0; i < powers; i++) {
    fprintf(stderr, "power %.5f swaps %.2f accepted: ", power[i], swaps[i].rate());
    const char *names[MOVES] = {"evolution", "leap", "walk", "ridge"};
    for (int k = 0; k < MOVES; k++) fprintf(stderr, " %s %.3f", names[k], counts[i][k].rate());
    fprintf(stderr, "\n");
  }
}
