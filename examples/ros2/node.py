"""A ROS 2 node: subscribes to sound and questions, publishes answers.

    python3 node.py --ros-args -p bundle:=/opt/ltbm/bundle -p level:=keep25

/audio      audio_common_msgs/AudioData: int16 samples, one channel, at the parameter `rate`
/question   std_msgs/String
/answer     std_msgs/String
"""

# ROS's packages come with its installation, not from PyPI.
import numpy as np
import rclpy  # pyright: ignore[reportMissingImports]
from audio_common_msgs.msg import AudioData  # pyright: ignore[reportMissingImports]
from listening import Listening
from rclpy.node import Node  # pyright: ignore[reportMissingImports]
from std_msgs.msg import String  # pyright: ignore[reportMissingImports]

QUEUED_MESSAGES = 100  # of sound that ROS keeps for this node


class ListeningNode(Node):
    """Thin over `Listening`."""

    def __init__(self):
        super().__init__("ltbm")
        bundle = self.declare_parameter("bundle", "bundle").value
        level = self.declare_parameter("level", "keep25").value
        rate = self.declare_parameter("rate", 16_000).value
        self.answers = self.create_publisher(String, "answer", 10)
        self.listening = Listening(bundle, level, rate, self.publish, self.get_logger().warning)
        self.create_subscription(AudioData, "audio", self.take_audio, QUEUED_MESSAGES)
        self.create_subscription(String, "question", self.take_question, 10)

    def take_audio(self, message) -> None:
        self.listening.take_audio(np.frombuffer(bytes(message.data), "<i2"))

    def take_question(self, message) -> None:
        self.listening.take_question(message.data)

    def publish(self, text: str) -> None:
        self.answers.publish(String(data=text))


def main() -> None:
    rclpy.init()
    node = ListeningNode()
    try:
        rclpy.spin(node)
    finally:
        node.listening.close()
        node.destroy_node()


if __name__ == "__main__":
    main()
