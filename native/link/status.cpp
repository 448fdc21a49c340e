#include "link/status.h"

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "crypto/channel.h"
#include "link/errors.h"

namespace pipellm {

namespace {

thread_local std::string last_error_text;

}  // namespace

const char* last_error(void*) { return last_error_text.c_str(); }

int refused(PipellmStatus status, const char* text) {
  last_error_text = text;
  return status;
}

int status_of_exception() noexcept {
  try {
    throw;
  } catch (const DriverError& error) {
    return refused(error.status(), error.what());
  } catch (const ContextLost& error) {
    return refused(PIPELLM_CONTEXT_LOST, error.what());
  } catch (const CounterExhausted& error) {
    return refused(PIPELLM_NOT_PERMITTED, error.what());
  } catch (const std::bad_alloc&) {
    return refused(PIPELLM_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::invalid_argument& error) {
    return refused(PIPELLM_INVALID_VALUE, error.what());
  } catch (const std::system_error& error) {
    return refused(PIPELLM_OPERATING_SYSTEM, error.what());
  } catch (const std::exception& error) {
    return refused(PIPELLM_UNKNOWN, error.what());
  }
}

void throw_status(int status) {
  if (status == PIPELLM_CONTEXT_LOST) throw ContextLost(last_error_text);
  throw DriverError(static_cast<PipellmStatus>(status), last_error_text);
}

}  // namespace pipellm
