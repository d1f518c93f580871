// An example, to be adapted: a controller that runs the network @NAME@ once per update.
#ifndef @CAPITAL@_CONTROLLER_HPP
#define @CAPITAL@_CONTROLLER_HPP

#include <array>
#include <string>
#include <vector>

#include "@NAME@.h"
#include "controller_interface/controller_interface.hpp"

namespace @NAME@_controller
{

class Controller : public controller_interface::ControllerInterface
{
public:
  controller_interface::CallbackReturn on_init() override;
  controller_interface::CallbackReturn on_configure(const rclcpp_lifecycle::State & previous) override;
  controller_interface::CallbackReturn on_activate(const rclcpp_lifecycle::State & previous) override;
  controller_interface::InterfaceConfiguration command_interface_configuration() const override;
  controller_interface::InterfaceConfiguration state_interface_configuration() const override;
  controller_interface::return_type update(const rclcpp::Time & time, const rclcpp::Duration & period) override;

private:
  bool observe();

  std::vector<std::string> states_;
  std::vector<std::string> commands_;
  std::array<float, @CAPITAL@_INPUTS> x_{};
  std::array<float, @CAPITAL@_OUTPUTS> y_{};
};

}  // namespace @NAME@_controller

#endif
