// An example, to be adapted: a controller that runs the network @NAME@ once per update.
#include "controller.hpp"

#include <cmath>
#include <cstddef>
#include <exception>

#include "pluginlib/class_list_macros.hpp"

namespace @NAME@_controller
{

using controller_interface::CallbackReturn;
using controller_interface::InterfaceConfiguration;
using controller_interface::interface_configuration_type;
using controller_interface::return_type;

CallbackReturn Controller::on_init()
{
  try {
    auto_declare<std::vector<std::string>>("state_interfaces", {});
    auto_declare<std::vector<std::string>>("command_interfaces", {});
  } catch (const std::exception & error) {
    RCLCPP_ERROR(get_node()->get_logger(), "%s", error.what());
    return CallbackReturn::ERROR;
  }
  return CallbackReturn::SUCCESS;
}

CallbackReturn Controller::on_configure(const rclcpp_lifecycle::State &)
{
  states_ = get_node()->get_parameter("state_interfaces").as_string_array();
  commands_ = get_node()->get_parameter("command_interfaces").as_string_array();
  if (states_.size() != x_.size() || commands_.size() != y_.size()) {
    RCLCPP_ERROR(
      get_node()->get_logger(), "expected %zu state_interfaces and %zu command_interfaces, got %zu and %zu",
      x_.size(), y_.size(), states_.size(), commands_.size());
    return CallbackReturn::ERROR;
  }
  if (const int result = @NAME@_self_test(); result != @CAPITAL@_PASSED) {
    RCLCPP_ERROR(get_node()->get_logger(), "this build of @NAME@ is not the proved one: its self-test gives %d", result);
    return CallbackReturn::ERROR;
  }
  return CallbackReturn::SUCCESS;
}

CallbackReturn Controller::on_activate(const rclcpp_lifecycle::State &)
{
  for (std::size_t i = 0; i < states_.size(); i++) {
    if (state_interfaces_.at(i).get_name() != states_[i]) {
      RCLCPP_ERROR(get_node()->get_logger(), "state interface %zu is not %s", i, states_[i].c_str());
      return CallbackReturn::ERROR;
    }
  }
  for (std::size_t i = 0; i < commands_.size(); i++) {
    if (command_interfaces_.at(i).get_name() != commands_[i]) {
      RCLCPP_ERROR(get_node()->get_logger(), "command interface %zu is not %s", i, commands_[i].c_str());
      return CallbackReturn::ERROR;
    }
  }
  return CallbackReturn::SUCCESS;
}

InterfaceConfiguration Controller::command_interface_configuration() const
{
  return {interface_configuration_type::INDIVIDUAL, commands_};
}

InterfaceConfiguration Controller::state_interface_configuration() const
{
  return {interface_configuration_type::INDIVIDUAL, states_};
}

// Adapt this: what the network takes is listed in @NAME@.h, in its units. Here each value is a state interface as it is;
// positions relative to a default, gravity in the body's frame, commands and earlier actions are to be computed.
bool Controller::observe()
{
  for (std::size_t i = 0; i < x_.size(); i++) {
    const auto value = state_interfaces_[i].get_optional();
    if (!value.has_value()) {
      return false;
    }
    x_[i] = static_cast<float>(*value);
  }
  return true;
}

return_type Controller::update(const rclcpp::Time &, const rclcpp::Duration &)
{
  if (!observe()) {
    return return_type::ERROR;
  }
  @NAME@_infer(x_.data(), y_.data());
  for (const float value : y_) {
    if (!std::isfinite(value)) {
      return return_type::ERROR;
    }
  }
  bool written = true;
  for (std::size_t i = 0; i < y_.size(); i++) {
    written = command_interfaces_[i].set_value(static_cast<double>(y_[i])) && written;
  }
  return written ? return_type::OK : return_type::ERROR;
}

}  // namespace @NAME@_controller

PLUGINLIB_EXPORT_CLASS(@NAME@_controller::Controller, controller_interface::ControllerInterface)
