"""Stand-ins for the headers of ROS 2 that the example for ros2_control includes, by their paths.

They have the names and types that control.ros.org documents for Jazzy, and do nothing.
"""

from __future__ import annotations

_CONTROLLER = """\
#pragma once
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>
namespace rclcpp { class Time {}; class Duration {};
struct Logger {};
struct Parameter { std::vector<std::string> as_string_array() const { return {}; } }; }
namespace rclcpp_lifecycle { class State {};
struct LifecycleNode { rclcpp::Logger get_logger() const { return {}; }
  rclcpp::Parameter get_parameter(const std::string &) const { return {}; } }; }
#define RCLCPP_ERROR(logger, ...) ((void)(logger), (void)std::printf(__VA_ARGS__))
namespace hardware_interface {
struct LoanedStateInterface { std::string get_name() const { return {}; }
  template <typename T = double> [[nodiscard]] std::optional<T> get_optional() const { return {}; } };
struct LoanedCommandInterface { std::string get_name() const { return {}; }
  template <typename T> [[nodiscard]] bool set_value(const T &) { return true; } }; }
namespace controller_interface {
enum class return_type : unsigned char { OK = 0, ERROR = 1 };
enum class CallbackReturn : unsigned char { SUCCESS = 97, FAILURE = 98, ERROR = 99 };
enum class interface_configuration_type : unsigned char { ALL = 0, INDIVIDUAL = 1, NONE = 2 };
struct InterfaceConfiguration { interface_configuration_type type; std::vector<std::string> names = {}; };
class ControllerInterface {
public:
  virtual ~ControllerInterface() = default;
  virtual CallbackReturn on_init() = 0;
  virtual CallbackReturn on_configure(const rclcpp_lifecycle::State &) { return CallbackReturn::SUCCESS; }
  virtual CallbackReturn on_activate(const rclcpp_lifecycle::State &) { return CallbackReturn::SUCCESS; }
  virtual InterfaceConfiguration command_interface_configuration() const = 0;
  virtual InterfaceConfiguration state_interface_configuration() const = 0;
  virtual return_type update(const rclcpp::Time &, const rclcpp::Duration &) = 0;
  template <typename T> T auto_declare(const std::string &, const T & value) { return value; }
  std::shared_ptr<rclcpp_lifecycle::LifecycleNode> get_node() const { return {}; }
protected:
  std::vector<hardware_interface::LoanedCommandInterface> command_interfaces_;
  std::vector<hardware_interface::LoanedStateInterface> state_interfaces_;
}; }
"""


def ros() -> dict[str, str]:
    """The texts of the headers."""
    return {
        "controller_interface/controller_interface.hpp": _CONTROLLER,
        "pluginlib/class_list_macros.hpp": "#pragma once\n#define PLUGINLIB_EXPORT_CLASS(own, base)\n",
    }
