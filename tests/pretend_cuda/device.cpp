// A CUDA device that is pretended, for a CPU build of torch: tensors keyed CUDA in host memory, with real numbers.
//
// The kernels that torch registers for CUDA are missing in such a build. One boxed fallback takes the place of all: it runs
// the CPU kernel on an alias of the same memory, and refuses operands of two devices as CUDA does. Copies and waits of the
// host are told to a listener; bytes held are counted.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>
#include <atomic>
#include <map>
#include <set>

namespace {
using namespace at;
using torch::jit::Stack;

std::atomic<int> n_devices{1};
thread_local DeviceIndex current = 0;  // a thread's own, as CUDA's is: a new thread begins with device 0

Device current_device() { return Device(kCUDA, current); }
void set_device(DeviceIndex index) {
  TORCH_CHECK(index < n_devices, "CUDA error: invalid device ordinal");
  if (index >= 0) current = index;
}

// ---- memory -------------------------------------------------------------------------------------------------------
std::atomic<int64_t> held{0}, peak{0};
void grow(int64_t n) {
  auto now = held.fetch_add(n) + n;
  auto seen = peak.load();
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {}
}
struct Block {
  DataPtr data;
  size_t n;
};
void free_block(void* p) {
  auto* block = static_cast<Block*>(p);
  held -= block->n;
  delete block;
}
struct PretendAllocator final : Allocator {
  DataPtr allocate(size_t n) override {
    auto* block = new Block{GetCPUAllocator()->allocate(n), n};
    grow(n);
    return DataPtr(block->data.get(), block, &free_block, current_device());
  }
  DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
} allocator;

// ---- the current device; there is one stream, on which everything has happened when it returns -----------------------
struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return kCUDA; }
  Device exchangeDevice(Device d) const override { auto old = current_device(); setDevice(d); return old; }
  Device getDevice() const override { return current_device(); }
  void setDevice(Device d) const override { set_device(d.index()); }
  void uncheckedSetDevice(Device d) const noexcept override { if (d.index() >= 0) current = d.index(); }
  Stream getStream(Device d) const override { return Stream(Stream::DEFAULT, d.has_index() ? d : current_device()); }
  Stream getDefaultStream(Device d) const override { return getStream(d); }
  Stream getNewStream(Device d, int) const override { return getStream(d); }
  Stream getStreamFromGlobalPool(Device d, bool) const override { return getStream(d); }
  Stream exchangeStream(Stream s) const override { return getStream(s.device()); }
  void record(void** e, const Stream&, const DeviceIndex, const c10::EventFlag) const override { *e = (void*)1; }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  DeviceIndex deviceCount() const noexcept override { return n_devices; }
};

// ---- random numbers: each device has a generator of its own --------------------------------------------------------
struct PretendGenerator final : c10::GeneratorImpl {
  Generator cpu;
  explicit PretendGenerator(DeviceIndex i, uint64_t seed = c10::default_rng_seed_val)
      : GeneratorImpl(Device(kCUDA, i), DispatchKeySet(DispatchKey::CUDA)), cpu(at::detail::createCPUGenerator(seed)) {}
  void set_current_seed(uint64_t s) override { cpu.set_current_seed(s); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return cpu.current_seed(); }
  uint64_t seed() override { return cpu.seed(); }
  void set_state(const TensorImpl& s) override { cpu.unsafeGetGeneratorImpl()->set_state(s); }
  c10::intrusive_ptr<TensorImpl> get_state() const override { return cpu.unsafeGetGeneratorImpl()->get_state(); }
  GeneratorImpl* clone_impl() const override {
    auto* g = new PretendGenerator(device().index());
    g->set_state(*get_state());
    return g;
  }
};
Generator& default_generator(DeviceIndex i) {
  static std::vector<Generator> all = [] {
    std::vector<Generator> v;
    for (int i = 0; i < 8; i++) v.push_back(at::make_generator<PretendGenerator>(i));
    return v;
  }();
  return all.at(i < 0 ? current : i);
}

// ---- what is counted -----------------------------------------------------------------------------------------------
PyObject* listener = nullptr;
void tell(const char* kind, const std::string& what, int64_t bytes) {
  if (!listener) return;
  pybind11::gil_scoped_acquire gil;
  if (pybind11::handle h(listener); h) h(kind, what, bytes);
}
const std::set<std::string> syncing = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive", "aten::bincount", "aten::repeat_interleave"};
const std::set<std::string> indexing = {
    "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index",
    "aten::_unsafe_index_put"};
const std::set<std::string> no_host_scalars = {
    "aten::cat", "aten::stack", "aten::mm", "aten::bmm", "aten::addmm", "aten::gather", "aten::index_select",
    "aten::embedding", "aten::scatter", "aten::scatter_add", "aten::scatter_add_", "aten::scatter_", "aten::baddbmm"};

// ---- two views of the same bytes -----------------------------------------------------------------------------------
Tensor as_cpu(const Tensor& t) {
  if (!t.defined() || !t.is_cuda()) return t;
  if (t.numel() == 0 && !t.storage().data()) return at::empty_strided(t.sizes(), t.strides(), t.options().device(kCPU));
  auto storage = c10::make_intrusive<StorageImpl>(
      StorageImpl::use_byte_size_t(), t.storage().nbytes(),
      DataPtr(t.storage().mutable_data(), new c10::Storage(t.storage()),
              [](void* p) { delete static_cast<c10::Storage*>(p); }, Device(kCPU)),
      GetCPUAllocator(), true);
  auto r = at::detail::make_tensor<TensorImpl>(c10::Storage(storage), DispatchKeySet(DispatchKey::CPU), t.dtype());
  r.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  if (t.is_conj()) r._set_conj(true);
  if (t.is_neg()) r._set_neg(true);
  return r;
}
struct Kept {
  c10::Storage storage;
  int64_t n;
};
c10::Storage as_pretend_storage(const c10::Storage& cpu, Device d) {
  int64_t n = cpu.nbytes();
  grow(n);
  return c10::Storage(c10::make_intrusive<StorageImpl>(
      StorageImpl::use_byte_size_t(), n,
      DataPtr(cpu.mutable_data(), new Kept{cpu, n},
              [](void* p) {
                auto* kept = static_cast<Kept*>(p);
                held -= kept->n;
                delete kept;
              },
              d),
      &allocator, true));
}
Tensor as_pretend(const Tensor& cpu, Device d) {
  if (!cpu.defined()) return cpu;
  auto r = at::detail::make_tensor<TensorImpl>(
      as_pretend_storage(cpu.storage(), d), DispatchKeySet(DispatchKey::CUDA), cpu.dtype());
  r.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
  if (cpu.unsafeGetTensorImpl()->is_wrapped_number()) r.unsafeGetTensorImpl()->set_wrapped_number(true);
  return r;
}

// ---- the fallback --------------------------------------------------------------------------------------------------
void fallback(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  const std::string name = schema.name();
  const auto n = schema.arguments().size();
  const size_t first = stack->size() - n;
  const std::vector<c10::IValue> given(stack->begin() + first, stack->end());
  std::optional<Device> found;
  std::vector<std::pair<Tensor, Tensor>> pairs;  // pretend tensor and its alias
  bool masks = false, host_index = false;
  auto see = [&](const Tensor& t, bool index) -> Tensor {
    if (!t.defined()) return t;
    if (t.is_cuda()) {
      TORCH_CHECK(!found || *found == t.device(), "Expected all tensors to be on the same device, but found at least two "
                  "devices, ", found->str(), " and ", t.device().str(), "! (", name, ")");
      found = t.device();
      if (index && (t.scalar_type() == kBool || t.scalar_type() == kByte)) masks = true;
    } else {
      bool scalar = t.dim() == 0 && !no_host_scalars.count(name);
      if (index) host_index = true;
      TORCH_CHECK(scalar || index, "Expected all tensors to be on the same device, but found at least two devices, cuda and ",
                  t.device().str(), "! (", name, ", a tensor of shape ", t.sizes(), ")");
    }
    auto alias = as_cpu(t);
    if (t.is_cuda()) pairs.emplace_back(t, alias);
    return alias;
  };
  for (size_t i = 0; i < n; i++) {
    const auto& v = given[i];
    auto& put = (*stack)[first + i];
    const auto& type = schema.arguments()[i].type();
    bool index = indexing.count(name) && schema.arguments()[i].name() == "indices";
    if (v.isTensor()) {
      put = see(v.toTensor(), false);
    } else if (v.isTensorList()) {
      std::vector<Tensor> out;
      for (const Tensor& t : v.toTensorVector()) out.push_back(see(t, index));
      put = c10::IValue(out);
    } else if (v.isList() && (v.isOptionalTensorList() || index)) {
      c10::List<std::optional<Tensor>> out;
      for (const auto& e : v.toListRef())
        out.push_back(e.isNone() ? std::optional<Tensor>() : std::optional<Tensor>(see(e.toTensor(), index)));
      put = c10::IValue(out);
    } else if (v.isDevice() && v.toDevice().is_cuda()) {
      auto d = v.toDevice();
      if (!found) found = d.has_index() ? d : current_device();
      put = c10::IValue(Device(kCPU));
    } else if (v.isGenerator()) {
      put = static_cast<PretendGenerator*>(v.toGenerator().unsafeGetGeneratorImpl())->cpu;
    } else if (v.isNone() && type->str().find("Generator") != std::string::npos) {
      auto& generator = default_generator(found ? found->index() : -1);
      put = static_cast<PretendGenerator*>(generator.unsafeGetGeneratorImpl())->cpu;
    }
  }
  auto device = found.value_or(current_device());
  if (syncing.count(name) || ((masks || host_index) && name != "aten::index"))
    tell(name == "aten::_local_scalar_dense" ? "item" : host_index ? "h2d" : "sync", name, 0);
  op.callBoxedForDispatchKey(DispatchKey::CPU, *stack);
  for (auto& [t, alias] : pairs) {  // out= and in-place operators may have resized
    if (!alias.defined() || !t.defined()) continue;
    if (alias.sizes() != t.sizes() || alias.strides() != t.strides()) {
      if (alias.storage().data() != t.storage().data())
        t.unsafeGetTensorImpl()->set_storage_keep_dtype(as_pretend_storage(alias.storage(), device));
      t.unsafeGetTensorImpl()->set_sizes_and_strides(alias.sizes(), alias.strides(), alias.storage_offset());
    }
  }
  const auto& returns = schema.returns();
  const size_t back = stack->size() - returns.size();
  for (size_t i = 0; i < returns.size(); i++) {
    auto& put = (*stack)[back + i];
    const auto* alias = returns[i].alias_info();
    if (alias && alias->isWrite()) {
      for (size_t a = 0; a < n; a++) {
        const auto* of = schema.arguments()[a].alias_info();
        if (of && of->beforeSets() == alias->beforeSets()) put = given[a];
      }
    } else if (put.isTensor()) {
      put = as_pretend(put.toTensor(), device);
    } else if (put.isTensorList()) {
      std::vector<Tensor> out;
      for (const Tensor& t : put.toTensorVector()) out.push_back(as_pretend(t, device));
      put = c10::IValue(out);
    }
  }
}

// ---- what cannot go through it -------------------------------------------------------------------------------------
Tensor empty(IntArrayRef size, std::optional<ScalarType> dtype, std::optional<Layout>, std::optional<Device> d,
             std::optional<bool>, std::optional<MemoryFormat> format) {
  c10::DeviceGuard guard(d && d->has_index() ? *d : current_device());
  return at::detail::empty_generic(size, &allocator, DispatchKeySet(DispatchKey::CUDA),
                                   dtype.value_or(c10::typeMetaToScalarType(c10::get_default_dtype())), format);
}
Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<ScalarType> dtype, std::optional<Layout>,
                     std::optional<Device> d, std::optional<bool>) {
  c10::DeviceGuard guard(d && d->has_index() ? *d : current_device());
  return at::detail::empty_strided_generic(size, stride, &allocator, DispatchKeySet(DispatchKey::CUDA),
                                           dtype.value_or(c10::typeMetaToScalarType(c10::get_default_dtype())));
}
Tensor& copy_(Tensor& self, const Tensor& src, bool non_blocking) {
  if (self.device() != src.device()) {
    const char* kind = self.is_cpu() ? "d2h" : src.is_cpu() ? (non_blocking ? "h2d_async" : "h2d") : "d2d";
    tell(kind, "aten::copy_", src.nbytes());
  }
  as_cpu(self).copy_(as_cpu(src));
  return self;
}
int64_t fused_sdp_choice(const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, double, bool,
                         std::optional<double>, bool) {
  return 4;  // the kernel that device.py registers, which makes no matrix of scores
}
bool is_pinned(const Tensor&, std::optional<Device>) { return false; }

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("copy_", &copy_);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("unfold", &at::native::unfold);
  m.impl("resize_", &at::native::resize_);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  m.impl("view_as_real", &at::native::view_as_real);
  m.impl("view_as_complex", &at::native::view_as_complex);
  m.impl("_fused_sdp_choice", &fused_sdp_choice);
}
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
}  // namespace

namespace at {
struct CUDAHooks final : CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return n_devices; }
  int getNumGPUs() const override { return n_devices; }
  DeviceIndex getCurrentDevice() const override { return current; }
  DeviceIndex current_device() const override { return current; }
  void setCurrentDevice(DeviceIndex d) const override { current = d; }
  DeviceIndex exchangeDevice(DeviceIndex d) const override { auto o = current; current = d; return o; }
  DeviceIndex maybeExchangeDevice(DeviceIndex d) const override { return exchangeDevice(d); }
  void deviceSynchronize(DeviceIndex) const override { tell("sync", "synchronize", 0); }
  Allocator* getPinnedMemoryAllocator() const override { return GetCPUAllocator(); }
  Device getDeviceFromPtr(void*) const override { return Device(kCUDA, current); }
  const Generator& getDefaultGenerator(DeviceIndex i) const override { return default_generator(i); }
  Generator getNewGenerator(DeviceIndex i) const override { return at::make_generator<PretendGenerator>(i < 0 ? 0 : i); }
};
}  // namespace at

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  // torch asked for its hooks when it was imported, and keeps the answer: give that object our methods (it has no data).
  static at::CUDAHooks ours{at::CUDAHooksArgs{}};
  auto& kept = const_cast<at::CUDAHooksInterface&>(at::detail::getCUDAHooks());
  *reinterpret_cast<void**>(&kept) = *reinterpret_cast<void**>(&ours);
  at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&fused_sdp_choice);  // asked past the dispatcher
  c10::SetAllocator(DeviceType::CUDA, &allocator, 1);
  m.def("set_device_count", [](int n) { n_devices = n; });
  m.def("device_count", [] { return (int)n_devices; });
  m.def("set_device", [](int index) { set_device(index); });
  m.def("current_device", [] { return (int)current; });
  m.def("default_generator", [](int i) {
    return pybind11::reinterpret_steal<pybind11::object>(THPGenerator_Wrap(default_generator(i)));
  });
  m.def("listen", [](pybind11::object f) {
    Py_XDECREF(listener);
    listener = f.is_none() ? nullptr : f.release().ptr();
  });
  m.def("held", [] { return held.load(); });
  m.def("peak", [] { return peak.load(); });
  m.def("synchronize", [] { tell("sync", "synchronize", 0); });
  m.def("reset_peak", [] { peak = held.load(); });
}
